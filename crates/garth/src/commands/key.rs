use clap::{Args, Subcommand};
use garth_api::{CreateKey, Key as Info, KeyList, Role};
use garth_spec::ProjectName;
use serde_json::json;

use super::for_each;
use crate::complete;
use crate::context::{Context, Format, Repeat};
use crate::failure::Result;
use crate::output;

#[derive(Debug, Args)]
#[command(after_help = "\
Keys are for callers over the network (`garth serve --listen`); the daemon's socket needs none. A caller
sets GARTH_HOST=http://ADDRESS:PORT and GARTH_API_KEY, or shows `Authorization: Bearer KEY`.")]
pub struct Key {
    #[command(subcommand)]
    pub command: Verb,
}

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Make a key and print it, this once
    Create(Create),
    /// List keys
    #[command(visible_alias = "list")]
    Ls,
    /// End keys: their bearers are let in no more
    Revoke(Revoke),
}

#[derive(Debug, Args)]
pub struct Create {
    /// What it is for
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub name: String,
    /// What its bearer may do: viewer, look at projects; user, make, use and delete them; admin, all
    #[arg(long, value_name = "ROLE", default_value = "user")]
    pub role: Role,
    /// A project that it is for; can be repeated [default: all]
    #[arg(long = "project", value_name = "NAME", add = complete::projects())]
    pub projects: Vec<ProjectName>,
}

#[derive(Debug, Args)]
pub struct Revoke {
    /// Ids of the keys
    #[arg(value_name = "ID", required = true)]
    pub ids: Vec<String>,
}

pub async fn run(context: &Context, args: Key) -> Result<u8> {
    match args.command {
        Verb::Create(Create { name, role, projects }) => {
            let new = CreateKey { name, role, projects };
            let created = context.ask(Repeat::Unsafe, async |client| client.create_key(&new).await).await?;
            context.print(&created, |created| format!("{}\n", created.secret))?;
            Ok(0)
        }
        Verb::Ls => {
            let keys = context.ask(Repeat::Safe, async |client| client.keys().await).await?;
            context.print(&keys, |keys| table(keys, output::now()))?;
            Ok(0)
        }
        Verb::Revoke(Revoke { ids }) => {
            let revoke = async |id: &String| {
                context.ask(Repeat::Unsafe, async |client| client.revoke_key(id).await).await?;
                match context.format {
                    Format::Json => output::json_line(&json!({ "revoked": id })),
                    Format::Text => output::line(id),
                }
            };
            Ok(for_each(context, &ids, revoke).await)
        }
    }
}

fn table(list: &KeyList, now: i64) -> String {
    let rows: Vec<[String; 5]> = list.keys.iter().map(|key| row(key, now)).collect();
    output::table(["ID", "ROLE", "PROJECTS", "CREATED", "NAME"], &rows)
}

fn row(key: &Info, now: i64) -> [String; 5] {
    let projects: Vec<_> = key.projects.iter().map(ToString::to_string).collect();
    let projects = if projects.is_empty() { "all".to_owned() } else { projects.join(",") };
    let name = output::cell(&key.name, 40);
    [key.id.clone(), key.role.to_string(), projects, output::ago(key.created_at.as_second(), now), name]
}
