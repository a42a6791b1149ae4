//! The lab itself: what tests of Garth on Kubernetes may count on.

mod control_plane;
mod end;
mod extras;
mod node;
