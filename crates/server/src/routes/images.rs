use axum::Json as Answer;
use axum::body::Body;
use axum::extract::State;
use garth_api::{ErrorBody, ErrorCode, Image, ImageFormat, ImageList};
use garth_spec::ImageName;
use http::StatusCode;
use serde::Deserialize;

use crate::failure::Failure;
use crate::input::{Asked, Name};
use crate::router::App;
use crate::upload::Upload;
use crate::view;

/// All images, by name.
#[utoipa::path(get, path = "/v1/images", responses((status = 200, body = ImageList)))]
pub(crate) async fn list(State(app): State<App>) -> Result<Answer<ImageList>, Failure> {
    let engine = local(&app)?;
    let (images, projects) = (engine.images(), engine.list());
    let mut images: Vec<_> = images.iter().map(|image| view::image(image, &projects)).collect();
    if !images.iter().any(|image| image.name == ImageName::host()) {
        images.push(view::host_image());
        images.sort_by(|one, other| one.name.cmp(&other.name));
    }
    Ok(Answer(ImageList { images }))
}

/// One image.
#[utoipa::path(
    get, path = "/v1/images/{name}", params(("name" = String, Path)),
    responses((status = 200, body = Image), (status = 404, body = ErrorBody))
)]
pub(crate) async fn inspect(State(app): State<App>, Name(name): Name<ImageName>) -> Result<Answer<Image>, Failure> {
    let engine = local(&app)?;
    match engine.image(&name) {
        Ok(image) => Ok(Answer(view::image(&image, &engine.list()))),
        Err(_) if name == ImageName::host() => Ok(Answer(view::host_image())),
        Err(error) => Err(error.into()),
    }
}

/// What an import is to become.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct Import {
    /// The new image's name.
    name: ImageName,
    /// What the body is.
    #[serde(default)]
    format: ImageFormat,
}

/// Makes an image of a tar stream: a root filesystem (plain, gzip or zstd), a docker archive, or an OCI layout.
#[utoipa::path(
    post, path = "/v1/images", params(Import),
    request_body(content = Vec<u8>, content_type = "application/x-tar"),
    responses((status = 201, body = Image), (status = "4XX", body = ErrorBody), (status = "5XX", body = ErrorBody))
)]
pub(crate) async fn import(
    State(app): State<App>,
    Asked(Import { name, format }): Asked<Import>,
    body: Body,
) -> Result<(StatusCode, Answer<Image>), Failure> {
    let engine = local(&app)?;
    let mut body = Upload::new(body);
    let imported = if name.as_str().contains('/') {
        Err(Failure::new(ErrorCode::InvalidRequest, format!("an image of this machine has no '/' in its name: {name}")))
    } else if name == ImageName::host() || engine.image(&name).is_ok() {
        // Said before gigabytes are read; the engine says so again if another import wins meanwhile.
        Err(Failure::new(ErrorCode::AlreadyExists, format!("image {name} exists already")))
    } else {
        body.import(engine, name, known(format)).await
    };
    match imported {
        Ok(image) => Ok((StatusCode::CREATED, Answer(view::image(&image, &[])))),
        Err(failure) => {
            body.drain().await;
            Err(failure)
        }
    }
}

fn local(app: &App) -> Result<&garth_engine::Engine, Failure> {
    app.engine.local("an image of Garth's own", "name an image that the cluster's nodes can pull")
}

fn known(format: ImageFormat) -> garth_engine::ImageFormat {
    match format {
        ImageFormat::Auto => garth_engine::ImageFormat::Auto,
        ImageFormat::Tar => garth_engine::ImageFormat::Tar,
        ImageFormat::DockerArchive => garth_engine::ImageFormat::DockerArchive,
        ImageFormat::OciLayout => garth_engine::ImageFormat::OciLayout,
    }
}

/// Forgets an image; projects that began as it stay.
#[utoipa::path(
    delete, path = "/v1/images/{name}", params(("name" = String, Path)),
    responses((status = 204), (status = "4XX", body = ErrorBody), (status = "5XX", body = ErrorBody))
)]
pub(crate) async fn remove(State(app): State<App>, Name(name): Name<ImageName>) -> Result<StatusCode, Failure> {
    local(&app)?.remove_image(name).await?;
    Ok(StatusCode::NO_CONTENT)
}
