//! Real Kubernetes clusters on one machine, for tests of what Garth does on Kubernetes.
//!
//! ```text
//!  Lab::control_plane   etcd, API server, controllers, scheduler      certificates, kubeconfig: who may what
//!  Lab::with_node       and containerd, kubelet, CNI, volumes         images: what Pods run
//!        |
//!        v
//!  component: one program, its log, its crash    run by `kubectl`, or over HTTPS by anybody with a kubeconfig
//!        |
//!        v
//!  place: namespaces, a folder, cgroups, a wire; its keeper cleans up, whatever becomes of the tests
//! ```
//!
//! The programs are those of `tests/cluster/build`. All of them run in mount, process and network namespaces of the
//! lab's own, so several labs do not meet. The machine reaches the API server ([`Lab::server`]) and every Pod by its
//! address; a daemon under test needs nothing but a kubeconfig. Pods reach the machine ([`Lab::machine_address`]) and,
//! by the Service `kubernetes`, the API server; nothing beyond, and no other Service, as there is no kube-proxy. No
//! network policy is enforced. With cgroup v1 too, and without CAP_SYS_RESOURCE.
//!
//! A lab in a `static` is not dropped, but ends with the process that made it all the same.
#![forbid(unsafe_code)]

mod binaries;
mod certificates;
mod component;
mod control_plane;
mod extras;
pub mod garth;
mod image;
mod kubeconfig;
mod kubectl;
mod lab;
mod node;
mod place;
mod wait;

pub use binaries::{Part, missing};
pub use component::Component;
pub use extras::FAKE;
pub use image::{BUSYBOX, Image};
pub use lab::Lab;
pub use node::NODE;
pub use place::{Lasts, Place};
pub use wait::wait_for;

/// The addresses of Services.
const SERVICE_RANGE: &str = "10.96.0.0/16";

/// The first of them, which Kubernetes gives the Service `kubernetes`.
const API_SERVICE: &str = "10.96.0.1";
