//! envd's `filesystem.Filesystem`.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use connectrpc::{ConnectError, RequestContext, Response, ServiceRequest, ServiceResult, ServiceStream};
use futures::stream::unfold;
use futures::{StreamExt, stream};
use garth_protocol::filesystem::oneof::watch_dir_response::Event;
use garth_protocol::filesystem::watch_dir_response::{KeepAlive, StartEvent};
use garth_protocol::filesystem::{
    CreateWatcherRequest, CreateWatcherResponse, EntryInfo, Filesystem, FilesystemEvent, GetWatcherEventsRequest,
    GetWatcherEventsResponse, ListDirRequest, ListDirResponse, MakeDirRequest, MakeDirResponse, MoveRequest,
    MoveResponse, RemoveRequest, RemoveResponse, RemoveWatcherRequest, RemoveWatcherResponse, StatRequest,
    StatResponse, WatchDirRequest, WatchDirResponse,
};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::files::make_directories;
use crate::refusal::{Kind, Refusal};
use crate::rpc::follow::ping_interval;
use crate::rpc::user;
use crate::users::{Names, User};
use crate::watch::{Order, Watch};
use crate::{Shared, entry, lock, paths};

/// How often an idle watch says that it is alive when the client does not ask for more.
const PING: Duration = Duration::from_secs(90);
/// Events that wait for a client that polls; the oldest go.
const WAITING: usize = 4096;
/// Watchers that clients may leave behind; the oldest go.
const WATCHERS: usize = 64;

/// See the module.
pub struct EnvdFilesystem {
    shared: Arc<Shared>,
    watchers: Mutex<Watchers>,
}

#[derive(Default)]
struct Watchers {
    list: VecDeque<Watcher>,
    next: u64,
}

/// A watch for a client that polls.
struct Watcher {
    id: String,
    events: Arc<Mutex<VecDeque<FilesystemEvent>>>,
    task: JoinHandle<()>,
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl EnvdFilesystem {
    /// The service of this agent.
    pub fn new(shared: Arc<Shared>) -> Self {
        Self { shared, watchers: Mutex::default() }
    }

    fn user(&self, context: &RequestContext) -> Result<User, ConnectError> {
        let name = user::named(context)?;
        Ok(paths::user(name.as_deref(), &self.shared.config, &self.shared.users)?)
    }

    /// Does something with the disk, off the event loop.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Names) -> Result<T, Refusal> + Send + 'static,
    ) -> Result<T, ConnectError> {
        let users = Arc::clone(&self.shared.users);
        let result = tokio::task::spawn_blocking(move || work(&users.names())).await;
        Ok(result.map_err(|error| ConnectError::internal(error.to_string()))??)
    }

    fn watch(&self, context: &RequestContext, asked: Asked<'_>) -> Result<Watch, ConnectError> {
        let order = Order {
            path: paths::absolute(asked.path, &self.user(context)?)?,
            recursive: asked.recursive,
            include_entry: asked.include_entry,
            allow_network_mounts: asked.allow_network_mounts,
        };
        Ok(Watch::begin(order, Arc::clone(&self.shared.users))?)
    }
}

/// What both requests for a watch hold.
struct Asked<'a> {
    path: &'a str,
    recursive: bool,
    include_entry: bool,
    allow_network_mounts: bool,
}

impl Filesystem for EnvdFilesystem {
    async fn stat(
        &self,
        context: RequestContext,
        request: ServiceRequest<'_, StatRequest>,
    ) -> ServiceResult<StatResponse> {
        let path = paths::absolute(request.path, &self.user(&context)?)?;
        let entry = self.blocking(move |names| entry::describe(&path, names)).await?;
        Response::ok(StatResponse { entry: entry.into(), ..Default::default() })
    }

    async fn make_dir(
        &self,
        context: RequestContext,
        request: ServiceRequest<'_, MakeDirRequest>,
    ) -> ServiceResult<MakeDirResponse> {
        let user = self.user(&context)?;
        let path = paths::absolute(request.path, &user)?;
        let entry = self.blocking(move |names| make_directory(&path, &user, names)).await?;
        Response::ok(MakeDirResponse { entry: entry.into(), ..Default::default() })
    }

    async fn r#move(
        &self,
        context: RequestContext,
        request: ServiceRequest<'_, MoveRequest>,
    ) -> ServiceResult<MoveResponse> {
        let user = self.user(&context)?;
        let (from, to) = (paths::absolute(request.source, &user)?, paths::absolute(request.destination, &user)?);
        let entry = self.blocking(move |names| rename(&from, &to, &user, names)).await?;
        Response::ok(MoveResponse { entry: entry.into(), ..Default::default() })
    }

    async fn list_dir(
        &self,
        context: RequestContext,
        request: ServiceRequest<'_, ListDirRequest>,
    ) -> ServiceResult<ListDirResponse> {
        let path = paths::absolute(request.path, &self.user(&context)?)?;
        let depth = request.depth.max(1);
        let entries = self.blocking(move |names| list(&path, depth, names)).await?;
        Response::ok(ListDirResponse { entries, ..Default::default() })
    }

    async fn remove(
        &self,
        context: RequestContext,
        request: ServiceRequest<'_, RemoveRequest>,
    ) -> ServiceResult<RemoveResponse> {
        let path = paths::absolute(request.path, &self.user(&context)?)?;
        self.blocking(move |_| remove(&path)).await?;
        Response::ok(RemoveResponse::default())
    }

    async fn watch_dir(
        &self,
        context: RequestContext,
        request: ServiceRequest<'_, WatchDirRequest>,
    ) -> ServiceResult<ServiceStream<WatchDirResponse>> {
        let watch = self.watch(
            &context,
            Asked {
                path: request.path,
                recursive: request.recursive,
                include_entry: request.include_entry,
                allow_network_mounts: request.allow_network_mounts,
            },
        )?;
        let ping = ping_interval(&context).unwrap_or(PING);
        let changes = unfold(watch, move |mut watch| async move {
            let event = match timeout(ping, watch.next()).await {
                Ok(Ok(event)) => Event::from(event),
                Ok(Err(error)) => return Some((Err(ConnectError::internal(error.to_string())), watch)),
                Err(_) => Event::from(KeepAlive::default()),
            };
            Some((Ok(WatchDirResponse { event: Some(event), ..Default::default() }), watch))
        });
        let first = WatchDirResponse { event: Some(StartEvent::default().into()), ..Default::default() };
        Response::ok(Box::pin(stream::iter([Ok(first)]).chain(changes)))
    }

    async fn create_watcher(
        &self,
        context: RequestContext,
        request: ServiceRequest<'_, CreateWatcherRequest>,
    ) -> ServiceResult<CreateWatcherResponse> {
        let watch = self.watch(
            &context,
            Asked {
                path: request.path,
                recursive: request.recursive,
                include_entry: request.include_entry,
                allow_network_mounts: request.allow_network_mounts,
            },
        )?;
        let events = Arc::new(Mutex::new(VecDeque::new()));
        let task = tokio::spawn(collect(watch, Arc::clone(&events)));
        let mut watchers = lock(&self.watchers);
        watchers.next += 1;
        let id = format!("w{}", watchers.next);
        watchers.list.push_back(Watcher { id: id.clone(), events, task });
        if watchers.list.len() > WATCHERS {
            watchers.list.pop_front();
        }
        Response::ok(CreateWatcherResponse { watcher_id: id, ..Default::default() })
    }

    async fn get_watcher_events(
        &self,
        _: RequestContext,
        request: ServiceRequest<'_, GetWatcherEventsRequest>,
    ) -> ServiceResult<GetWatcherEventsResponse> {
        let watchers = lock(&self.watchers);
        let watcher = watchers.list.iter().find(|watcher| watcher.id == request.watcher_id);
        let watcher = watcher.ok_or_else(|| unknown_watcher(request.watcher_id))?;
        let events = lock(&watcher.events).drain(..).collect();
        Response::ok(GetWatcherEventsResponse { events, ..Default::default() })
    }

    async fn remove_watcher(
        &self,
        _: RequestContext,
        request: ServiceRequest<'_, RemoveWatcherRequest>,
    ) -> ServiceResult<RemoveWatcherResponse> {
        let mut watchers = lock(&self.watchers);
        let place = watchers.list.iter().position(|watcher| watcher.id == request.watcher_id);
        let place = place.ok_or_else(|| unknown_watcher(request.watcher_id))?;
        watchers.list.remove(place);
        Response::ok(RemoveWatcherResponse::default())
    }
}

fn unknown_watcher(id: &str) -> ConnectError {
    ConnectError::not_found(format!("watcher with id {id} not found"))
}

async fn collect(mut watch: Watch, events: Arc<Mutex<VecDeque<FilesystemEvent>>>) {
    while let Ok(event) = watch.next().await {
        let mut events = lock(&events);
        if events.len() == WAITING {
            events.pop_front();
        }
        events.push_back(event);
    }
}

fn make_directory(path: &Path, user: &User, names: &Names) -> Result<EntryInfo, Refusal> {
    match fs::metadata(path) {
        Ok(metadata) if metadata.is_dir() => {
            return Err(Refusal::new(Kind::Exists, format!("directory already exists: {}", path.display())));
        }
        Ok(_) => {
            let message = format!("path already exists but it is not a directory: {}", path.display());
            return Err(Refusal::invalid(message));
        }
        Err(_) => make_directories(path, &user.identity)?,
    }
    entry::describe(path, names)
}

fn rename(from: &Path, to: &Path, user: &User, names: &Names) -> Result<EntryInfo, Refusal> {
    fs::symlink_metadata(from).map_err(|error| Refusal::of(&error, from.display()))?;
    make_directories(to.parent().unwrap_or(Path::new("/")), &user.identity)?;
    fs::rename(from, to).map_err(|error| Refusal::of(&error, to.display()))?;
    entry::describe(to, names)
}

/// Nothing there is what was wanted.
fn remove(path: &Path) -> Result<(), Refusal> {
    if path == Path::new("/") {
        return Err(Refusal::invalid("the root directory cannot be removed"));
    }
    let removed = match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other.map_err(|error| Refusal::of(&error, path.display())),
    }
}

/// Directories before what is in them, names in order; links are shown and not entered, but for the first.
fn list(path: &Path, depth: u32, names: &Names) -> Result<Vec<EntryInfo>, Refusal> {
    let metadata = fs::metadata(path).map_err(|error| Refusal::of(&error, path.display()))?;
    if !metadata.is_dir() {
        return Err(Refusal::invalid(format!("path is not a directory: {}", path.display())));
    }
    let mut found = Vec::new();
    let mut left: Vec<(PathBuf, u32)> = inside(path, 1).map_err(|error| Refusal::of(&error, path.display()))?;
    while let Some((path, level)) = left.pop() {
        // It may have gone since.
        let Ok(metadata) = fs::symlink_metadata(&path) else { continue };
        found.push(entry::of(&path, &metadata, names));
        if metadata.is_dir() && level < depth {
            left.extend(inside(&path, level + 1).unwrap_or_default());
        }
    }
    Ok(found)
}

/// Last name first.
fn inside(path: &Path, level: u32) -> io::Result<Vec<(PathBuf, u32)>> {
    let mut entries: Vec<OsString> =
        fs::read_dir(path)?.map(|entry| entry.map(|entry| entry.file_name())).collect::<io::Result<_>>()?;
    entries.sort_by(|a, b| b.cmp(a));
    Ok(entries.into_iter().map(|entry| (path.join(entry), level)).collect())
}
