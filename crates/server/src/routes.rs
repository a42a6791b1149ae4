//! One file per resource.

pub(crate) mod agent;
pub(crate) mod doctor;
pub(crate) mod hold;
pub(crate) mod images;
pub(crate) mod keys;
pub(crate) mod projects;
pub(crate) mod setup;
pub(crate) mod verify;
pub(crate) mod version;
