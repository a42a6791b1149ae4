use std::path::{Path, PathBuf};

use clap::Args;
use garth_protocol::filesystem::FileType;
use garth_spec::ProjectName;

use crate::agent::{Agent, Start};
use crate::context::Context;
use crate::exit::Exit;
use crate::failure::{Failure, Result};
use crate::tarball::{self, Special};
use crate::transfer;
use crate::unpack::Top;

#[derive(Debug, Args)]
#[command(after_help = "\
A file onto a directory goes into it; a directory onto a name that is not there becomes it, else it
goes into it; DIR/. means what is in DIR. Links are copied as links, owners are kept as numbers (out
of a project: when you are root). A link inside a project never leads to a file of this machine.

Examples:
  garth cp ./src web:/root/src
  garth cp web:/root/out.txt .
  garth cp web:/root/dist/. ./dist
  garth cp web:/root - | tar -t")]
pub struct Cp {
    /// What to copy: PATH, NAME:PATH, or - for a tar on standard input
    #[arg(add = crate::complete::copies())]
    pub source: String,
    /// Where to: NAME:PATH, PATH, or - for a tar on standard output
    #[arg(add = crate::complete::copies())]
    pub destination: String,
}

/// One end of a copy.
#[derive(Debug, PartialEq, Eq)]
enum End {
    Here(PathBuf),
    There(ProjectName, String),
    Stream,
}

pub async fn run(context: &Context, args: Cp) -> Result<u8> {
    match (end(&args.source)?, end(&args.destination)?) {
        (End::Here(from), End::There(name, to)) => {
            let agent = Agent::of(context, &name, Start::OnDemand);
            copy_in(&agent, &from, ends_in_dot(&args.source), &to).await?;
        }
        (End::There(name, from), End::Here(to)) => {
            let agent = Agent::of(context, &name, Start::OnDemand);
            copy_out(&agent, &from, &to, args.destination.ends_with('/')).await?;
        }
        (End::Stream, End::There(name, to)) => {
            let agent = Agent::of(context, &name, Start::OnDemand);
            agent.wake().await?;
            transfer::put(&agent, &to, tarball::bytes(Path::new("-"), std::io::stdin())).await?;
        }
        (End::There(name, from), End::Stream) => {
            let agent = Agent::of(context, &name, Start::OnDemand);
            agent.wake().await?;
            transfer::print(&agent, &from).await?;
        }
        _ => {
            return Err(
                Failure::usage("one end has to be in a project").hint("garth cp PATH NAME:PATH, or the other way")
            );
        }
    }
    Ok(0)
}

/// `NAME:PATH` when what is before the colon could be a name, as in docker cp: `./a:b` is a file here.
fn end(text: &str) -> Result<End> {
    if text == "-" {
        return Ok(End::Stream);
    }
    match text.split_once(':') {
        Some((name, path)) if !name.is_empty() && !name.contains('/') && !name.starts_with('.') => {
            let name = name.parse().map_err(|error: garth_spec::InvalidName| {
                Failure::usage(error.to_string()).hint(format!("write ./{text} for a file here"))
            })?;
            Ok(End::There(name, if path.is_empty() { "~".to_owned() } else { path.to_owned() }))
        }
        _ => Ok(End::Here(text.into())),
    }
}

fn ends_in_dot(text: &str) -> bool {
    text == "." || text.ends_with("/.")
}

async fn copy_in(agent: &Agent<'_>, from: &Path, content: bool, to: &str) -> Result<()> {
    let meta = std::fs::symlink_metadata(from);
    let meta = meta.map_err(|error| Failure::io(format!("cannot read {}", from.display()), &error))?;
    let source = Source { name: last_word(from)?, is_dir: meta.is_dir(), content };
    let there = agent.stat(to).await?.map(|entry| entry.r#type == FileType::Directory);
    let (directory, name) = place(&source, to, there)?;
    transfer::put(agent, &directory, tarball::tree(from.to_owned(), name, Special::LeaveOut)).await
}

async fn copy_out(agent: &Agent<'_>, from: &str, to: &Path, to_directory: bool) -> Result<()> {
    let entry = agent
        .stat(from)
        .await?
        .ok_or_else(|| Failure::new(Exit::NotFound, "not_found", format!("there is no {from} in {}", agent.project)))?;
    let is_dir = entry.r#type == FileType::Directory && !entry.is_symlink;
    let source = Source { name: PathBuf::from(&entry.name), is_dir, content: ends_in_dot(from) };
    let there = std::fs::metadata(to).ok().map(|meta| meta.is_dir());
    let to = if to_directory { format!("{}/", to.display()) } else { to.display().to_string() };
    let (directory, name) = place(&source, &to, there)?;
    let top = if name.as_os_str().is_empty() { Top::Strip } else { Top::Rename(name) };
    transfer::get(agent, from, Path::new(&directory), top).await
}

/// What is copied.
#[derive(Debug)]
struct Source {
    name: PathBuf,
    is_dir: bool,
    /// What is in the directory, not itself.
    content: bool,
}

/// The directory to copy into and the name to have there; no name for a directory's content.
/// `there` says whether the destination exists, and is a directory.
fn place(source: &Source, to: &str, there: Option<bool>) -> Result<(String, PathBuf)> {
    let to_path = Path::new(to);
    let refuse = |message: String| Err(Failure::new(Exit::Conflict, "conflict", message));
    match there {
        Some(true) if source.content => Ok((to.to_owned(), PathBuf::new())),
        Some(true) => Ok((to.to_owned(), source.name.clone())),
        Some(false) if source.is_dir => refuse(format!("{to} is a file, and a directory is to be copied onto it")),
        Some(false) if to.ends_with('/') => refuse(format!("{to} is a file, not a directory")),
        None if to.ends_with('/') && !source.is_dir => {
            Err(Failure::new(Exit::NotFound, "not_found", format!("there is no directory {to}")))
        }
        _ => {
            let name =
                to_path.file_name().map(PathBuf::from).ok_or_else(|| Failure::usage(format!("{to} names no file")))?;
            let parent = to_path.parent().filter(|parent| !parent.as_os_str().is_empty());
            Ok((parent.map_or_else(|| ".".to_owned(), |parent| parent.display().to_string()), name))
        }
    }
}

/// The name that a path has in a tar; of `.` and `..` that of the directory they mean.
fn last_word(path: &Path) -> Result<PathBuf> {
    if let Some(name) = path.file_name() {
        return Ok(name.into());
    }
    let meant = path.canonicalize().map_err(|error| Failure::io(format!("cannot read {}", path.display()), &error))?;
    Ok(meant.file_name().map_or_else(|| "root".into(), PathBuf::from))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_in_a_project_or_here() {
        let there = |name: &str, path: &str| End::There(name.parse().expect("name"), path.to_owned());
        assert_eq!(end("web:/root/x").ok(), Some(there("web", "/root/x")));
        assert_eq!(end("web:a:b").ok(), Some(there("web", "a:b")));
        assert_eq!(end("web:").ok(), Some(there("web", "~")));
        assert_eq!(end("./web:x").ok(), Some(End::Here("./web:x".into())));
        assert_eq!(end("/a/web:x").ok(), Some(End::Here("/a/web:x".into())));
        assert_eq!(end("-").ok(), Some(End::Stream));
        assert!(end("Web:/x").is_err());
    }

    #[track_caller]
    fn check(is_dir: bool, content: bool, to: &str, there: Option<bool>, wanted: Option<(&str, &str)>) {
        let source = Source { name: "src".into(), is_dir, content };
        let placed = place(&source, to, there).ok();
        assert_eq!(placed, wanted.map(|(directory, name)| (directory.to_owned(), name.into())));
    }

    #[test]
    fn things_go_where_docker_cp_puts_them() {
        check(false, false, "/d", Some(true), Some(("/d", "src")));
        check(false, false, "/d/new", None, Some(("/d", "new")));
        check(false, false, "/d/old", Some(false), Some(("/d", "old")));
        check(false, false, "new", None, Some((".", "new")));
        check(false, false, "/d/new/", None, None);
        check(false, false, "/d/old/", Some(false), None);
        check(true, false, "/d", Some(true), Some(("/d", "src")));
        check(true, true, "/d", Some(true), Some(("/d", "")));
        check(true, false, "/d/new/", None, Some(("/d", "new")));
        check(true, true, "/d/new", None, Some(("/d", "new")));
        check(true, false, "/d/file", Some(false), None);
    }
}
