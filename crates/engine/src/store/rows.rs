//! Between rows and types. Whatever is structured is JSON, read back by the types that wrote it.

use std::str::FromStr;

use rusqlite::types::Type;
use rusqlite::{Connection, Error, Result, Row, params};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::images::ImageEntry;
use crate::project::Project;

pub(super) fn project(row: &Row<'_>) -> Result<Project> {
    Ok(Project {
        id: parsed(row, "id")?,
        name: parsed(row, "name")?,
        state: json(row, "state")?,
        ephemeral: row.get("ephemeral")?,
        spec: json(row, "spec")?,
        image: optional(row, "image", |text| text.parse())?,
        image_config: json(row, "image_config")?,
        created_at: parsed(row, "created_at")?,
        started_at: optional(row, "started_at", |text| text.parse())?,
        ended: optional(row, "ended", |text| serde_json::from_str(text))?,
        verified: optional(row, "verified", |text| serde_json::from_str(text))?,
        sandbox: optional(row, "sandbox", |text| serde_json::from_str(text))?,
    })
}

pub(super) fn insert_project(connection: &Connection, project: &Project) -> Result<usize> {
    connection
        .prepare_cached(
            "INSERT INTO projects (state, ephemeral, spec, image, image_config, started_at, ended, sandbox, id, name, \
             created_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
        )?
        .execute(params![
            text(&project.state)?,
            project.ephemeral,
            text(&project.spec)?,
            project.image.map(|id| id.to_string()),
            text(&project.image_config)?,
            project.started_at.map(|at| at.to_string()),
            project.ended.as_ref().map(text).transpose()?,
            project.sandbox.as_ref().map(text).transpose()?,
            project.id.to_string(),
            project.name.as_str(),
            project.created_at.to_string(),
        ])
}

pub(super) fn update_project(connection: &Connection, project: &Project) -> Result<usize> {
    connection
        .prepare_cached(
            "UPDATE projects SET state = ?1, spec = ?2, image = ?3, image_config = ?4, started_at = ?5, ended = ?6, \
             sandbox = ?7, verified = ?8 WHERE id = ?9",
        )?
        .execute(params![
            text(&project.state)?,
            text(&project.spec)?,
            project.image.map(|id| id.to_string()),
            text(&project.image_config)?,
            project.started_at.map(|at| at.to_string()),
            project.ended.as_ref().map(text).transpose()?,
            project.sandbox.as_ref().map(text).transpose()?,
            project.verified.as_ref().map(text).transpose()?,
            project.id.to_string(),
        ])
}

pub(super) fn image(row: &Row<'_>) -> Result<ImageEntry> {
    Ok(ImageEntry {
        id: parsed(row, "id")?,
        name: parsed(row, "name")?,
        source: json(row, "source")?,
        config: json(row, "config")?,
        size: row.get::<_, Option<i64>>("size")?.and_then(|size| u64::try_from(size).ok()),
        created_at: parsed(row, "created_at")?,
    })
}

pub(super) fn insert_image(connection: &Connection, image: &ImageEntry) -> Result<usize> {
    connection.execute(
        "INSERT INTO images (id, name, source, config, size, created_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        params![
            image.id.to_string(),
            image.name.as_str(),
            text(&image.source)?,
            text(&image.config)?,
            image.size.and_then(|size| i64::try_from(size).ok()),
            image.created_at.to_string(),
        ],
    )
}

fn text<T: Serialize>(value: &T) -> Result<String> {
    serde_json::to_string(value).map_err(|error| Error::ToSqlConversionFailure(error.into()))
}

fn parsed<T>(row: &Row<'_>, column: &str) -> Result<T>
where
    T: FromStr,
    T::Err: std::error::Error + Send + Sync + 'static,
{
    convert(row, column, &row.get::<_, String>(column)?, str::parse)
}

fn json<T: DeserializeOwned>(row: &Row<'_>, column: &str) -> Result<T> {
    convert(row, column, &row.get::<_, String>(column)?, |text| serde_json::from_str(text))
}

fn optional<T, E>(row: &Row<'_>, column: &str, read: fn(&str) -> Result<T, E>) -> Result<Option<T>>
where
    E: std::error::Error + Send + Sync + 'static,
{
    row.get::<_, Option<String>>(column)?.map(|text| convert(row, column, &text, read)).transpose()
}

fn convert<T, E>(row: &Row<'_>, column: &str, text: &str, read: impl FnOnce(&str) -> Result<T, E>) -> Result<T>
where
    E: std::error::Error + Send + Sync + 'static,
{
    let index = row.as_ref().column_index(column)?;
    read(text).map_err(|error| Error::FromSqlConversionFailure(index, Type::Text, Box::new(error)))
}
