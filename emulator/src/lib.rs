//! An emulator of the Google APIs that rolecall calls: Cloud Run v1 and v2, IAP, Resource Manager, IAM roles and the
//! token endpoints, over one in-memory store.
//!
//! It shares no code with rolecall, so that a wrong field name cannot go unnoticed because both sides use it.
//! `docs/emulator.md` describes the control API under `/__emulator/`.

mod account;
mod call;
mod caller;
mod control;
mod credentials;
mod directory;
mod error;
mod etag;
mod fault;
mod journal;
mod member;
mod policy;
mod quota;
mod resource;
mod roles;
mod routes;
mod run;
mod server;
mod settings;
mod snapshot;
mod world;

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::Value;
use tokio::task::JoinHandle;

pub use journal::Entry;

/// A running emulator. Dropping it closes the listener and all connections.
#[derive(Debug)]
pub struct Emulator {
    /// The address it listens on, with the actual port when 0 was requested.
    pub addr: SocketAddr,
    handle: Handle,
    task: JoinHandle<()>,
}

/// A cheap handle to a running emulator's store. Calls through it are not in the journal, except edits of policies.
#[derive(Debug, Clone, Default)]
pub struct Handle(Arc<Mutex<world::World>>);

/// Error of a control call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ControlError {
    /// HTTP status.
    pub status: u16,
    /// The problem and its location.
    pub message: String,
}

impl std::fmt::Display for ControlError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for ControlError {}

/// Starts an emulator with an empty store on the current tokio runtime.
pub async fn start(listen: SocketAddr) -> io::Result<Emulator> {
    let listener = tokio::net::TcpListener::bind(listen).await?;
    let addr = listener.local_addr()?;
    let handle = Handle::default();
    let task = tokio::spawn(server::serve(listener, handle.clone()));
    Ok(Emulator { addr, handle, task })
}

impl Emulator {
    /// The base of all emulated APIs, without a trailing slash.
    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// A handle that can be cloned and sent to other threads.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Stops listening and closes all connections, including those with a call in progress.
    pub async fn shutdown(mut self) {
        self.task.abort();
        // The task ends as canceled, which is expected.
        let _ = (&mut self.task).await;
    }

    /// Runs until the listener stops, which it does not do by itself.
    pub async fn run(mut self) {
        let _ = (&mut self.task).await;
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl std::ops::Deref for Emulator {
    type Target = Handle;

    fn deref(&self) -> &Handle {
        &self.handle
    }
}

impl Handle {
    pub(crate) fn world(&self) -> MutexGuard<'_, world::World> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All calls in the journal, oldest first, without those of the control API.
    pub fn journal(&self) -> Vec<Arc<Entry>> {
        self.world().journal.entries().filter(|entry| !entry.control).map(Arc::clone).collect()
    }

    /// Number of calls in the journal with this method and a path that contains `part`.
    pub fn count(&self, method: &str, part: &str) -> usize {
        self.world()
            .journal
            .entries()
            .filter(|entry| !entry.control && entry.method == method && entry.path.contains(part))
            .count()
    }

    /// The policy of `projects/P/locations/L/services/S`, `projects/P` or `projects/P/iap_web/…` as in a version 3
    /// read; none when the name is not one of these.
    pub fn policy(&self, resource: &str) -> Option<Value> {
        let mut world = self.world();
        let target = world.projects.target(resource)?;
        Some(policy::render(world.current(&target).as_deref(), 3))
    }

    /// Makes a call of the control API without HTTP: `path` is what follows `/__emulator/`, with query.
    pub fn control(&self, method: &str, path: &str, body: &Value) -> Result<Value, ControlError> {
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        control::answer(&mut self.world(), method, path.trim_matches('/'), query, body)
    }
}
