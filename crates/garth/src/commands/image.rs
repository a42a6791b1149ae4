use std::io::{self, Read};
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use garth_api::{Image as Info, ImageFormat, ImageList, stream_body};
use garth_spec::ImageName;
use serde_json::json;

use super::for_each;
use crate::context::{Context, Format, Repeat};
use crate::failure::{Failure, Result};
use crate::tarball::{self, Special};
use crate::{complete, output};

#[derive(Debug, Args)]
#[command(subcommand_required = false, arg_required_else_help = false)]
pub struct Image {
    #[command(subcommand)]
    pub command: Option<Verb>,
}

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Make an image of a root filesystem, a docker save file or an OCI layout
    Import(Import),
    /// List images
    #[command(visible_alias = "list")]
    Ls(Ls),
    /// Remove images; projects made from them stay
    #[command(visible_aliases = ["remove", "delete"])]
    Rm(Rm),
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  garth image import debian ./rootfs.tar.zst     a tar: plain, .gz or .zst
  garth image import app ./app.tar               docker save, or an OCI layout in a tar
  garth image import tree ./rootfs               a directory: a root filesystem or an OCI layout
  ssh build docker save app | garth image import app -")]
pub struct Import {
    /// What to call it
    pub name: ImageName,
    /// A file or directory; - for standard input
    pub path: PathBuf,
    /// What it is: auto, tar, docker-archive or oci-layout
    #[arg(long, default_value_t)]
    pub format: ImageFormat,
}

#[derive(Debug, Args)]
pub struct Ls {
    /// Print names only
    #[arg(long, short)]
    pub quiet: bool,
}

#[derive(Debug, Args)]
pub struct Rm {
    /// The images
    #[arg(value_name = "NAME", required = true, add = complete::images())]
    pub names: Vec<ImageName>,
}

pub async fn run(context: &Context, args: Image) -> Result<u8> {
    match args.command.unwrap_or(Verb::Ls(Ls { quiet: false })) {
        Verb::Import(args) => import(context, args).await,
        Verb::Ls(args) => list(context, &args).await,
        Verb::Rm(args) => remove(context, &args).await,
    }
}

async fn import(context: &Context, args: Import) -> Result<u8> {
    let Import { name, path, format } = args;
    // The body can be sent once: the daemon is made to answer before.
    context.ask(Repeat::Safe, async |client| client.version().await).await?;
    let (body, reading) = if path.is_dir() {
        tarball::tree(path.clone(), PathBuf::new(), Special::Pass)
    } else {
        tarball::bytes(&path, open(&path)?)
    };
    let body = std::cell::RefCell::new(Some(stream_body(body)));
    let import = async |client: &garth_api::Client| {
        let body = body.take().unwrap_or_else(|| garth_api::full_body(Vec::new()));
        client.import(&name, format, body).await
    };
    let image = context.ask(Repeat::Unsafe, import).await;
    // What could not be read here is the better answer than what the daemon made of half a stream.
    reading.check()?;
    context.print(&image?, |image| format!("{}\n", image.name))?;
    Ok(0)
}

fn open(path: &Path) -> Result<Box<dyn Read + Send>> {
    if path == Path::new("-") {
        return Ok(Box::new(io::stdin()));
    }
    let file = std::fs::File::open(path);
    let file = file.map_err(|error| Failure::io(format!("cannot open {}", path.display()), &error))?;
    Ok(Box::new(file))
}

async fn list(context: &Context, args: &Ls) -> Result<u8> {
    let list = context.ask(Repeat::Safe, async |client| client.images().await).await?;
    if args.quiet && context.format == Format::Text {
        output::print(&list.images.iter().map(|image| format!("{}\n", image.name)).collect::<String>())?;
    } else {
        context.print(&list, |list| table(list, output::now()))?;
    }
    Ok(0)
}

fn table(list: &ImageList, now: i64) -> String {
    let rows: Vec<[String; 4]> = list.images.iter().map(|image| row(image, now)).collect();
    output::table(["NAME", "SIZE", "PROJECTS", "CREATED"], &rows)
}

fn row(image: &Info, now: i64) -> [String; 4] {
    [
        image.name.to_string(),
        image.size.map_or_else(String::new, output::bytes),
        image.projects.to_string(),
        image.created_at.map_or_else(String::new, |made| output::ago(made.as_second(), now)),
    ]
}

async fn remove(context: &Context, args: &Rm) -> Result<u8> {
    let remove = async |name: &ImageName| {
        context.ask(Repeat::Unsafe, async |client| client.remove_image(name).await).await?;
        match context.format {
            Format::Json => output::json_line(&json!({ "removed": name })),
            Format::Text => output::line(name.as_str()),
        }
    };
    Ok(for_each(context, &args.names, remove).await)
}
