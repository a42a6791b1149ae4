//! The HTTP contract between Garth's daemon and whoever drives it: the types on the wire, the
//! paths, the errors, and a small client.
//!
//! ```text
//! garth (CLI), tests --Client--> unix socket --HTTP/1.1, JSON--> server (same types)
//!                       \--Client::agent--> byte proxy --> the agent in the sandbox
//! ```
//!
//! Unknown fields are errors in both directions, so a client and a daemon that disagree find out at
//! once. This crate decides nothing: no defaults that the server does not state, no retries, no
//! starting of daemons.
#![forbid(unsafe_code)]

mod client;
mod doctor;
mod error;
mod image;
mod key;
mod new_spec;
mod project;
pub mod routes;
mod setup;
mod verify;
mod version;

pub use client::{Body, Client, ClientError, Connection, Hold, Place, full_body, stream_body};
pub use doctor::{Doctor, Finding, RuntimeDoctor};
pub use error::{Error, ErrorBody, ErrorCode};
pub use image::{Image, ImageFormat, ImageList, ImageSource, UnknownImageFormat};
pub use key::{CreateKey, CreatedKey, Key, KeyList, Role, UnknownRole};
pub use new_spec::NewSpec;
pub use project::{
    Addresses, Changed, CreateProject, DiskUse, Ended, EndedReason, LimitsPatch, Project, ProjectList, ProjectPatch,
    RuntimeReport, StopRequest, Usage, Waiting,
};
pub use setup::{GuestFiles, SetupEvent, SetupMicrovm, SetupProgress, SetupStep};
pub use verify::{Check, Verification, Verified};
pub use version::Version;
