use std::error::Error as StdError;

/// Why a network could not be given, kept or taken away.
#[derive(Debug, thiserror::Error)]
#[error("{action}")]
pub struct Error {
    kind: ErrorKind,
    action: String,
    #[source]
    source: Option<Box<dyn StdError + Send + Sync>>,
}

/// What went wrong, for a caller that decides by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The tag is not 1 to 6 lower-case letters and digits.
    InvalidTag,
    /// The `nft` program is not installed.
    NftMissing,
    /// `nft` refused the ruleset, so nothing may be connected.
    RulesetRefused,
    /// `CAP_NET_ADMIN` or `CAP_SYS_ADMIN` is missing.
    NotPermitted,
    /// The kernel refused a request or lacks a feature.
    Kernel,
    /// Every candidate range overlaps a network that this host is connected to.
    NoFreeSubnet,
    /// Every address of the subnet is leased.
    AddressesExhausted,
    /// `network.json` in the data directory cannot be read, understood or written.
    Record,
    /// This sandbox has a lease already.
    AlreadyLeased,
    /// The namespace that was given for a sandbox is the host's own.
    HostNamespace,
    /// The DNS forwarder could not listen.
    Dns,
    /// [`crate::Network::close`] was called, or its thread ended.
    Closed,
}

impl Error {
    pub(crate) fn new(kind: ErrorKind, action: impl Into<String>) -> Self {
        Self { kind, action: action.into(), source: None }
    }

    pub(crate) fn because(
        kind: ErrorKind,
        action: impl Into<String>,
        source: impl Into<Box<dyn StdError + Send + Sync>>,
    ) -> Self {
        Self { kind, action: action.into(), source: Some(source.into()) }
    }

    /// From a system call or netlink: tells a missing privilege from other refusals.
    pub(crate) fn kernel(action: impl Into<String>, source: impl Into<std::io::Error>) -> Self {
        let source = source.into();
        let kind = match source.kind() {
            std::io::ErrorKind::PermissionDenied => ErrorKind::NotPermitted,
            _ => ErrorKind::Kernel,
        };
        Self::because(kind, action, source)
    }

    /// What went wrong.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// What the user can do about it, where there is something.
    pub fn hint(&self) -> Option<&'static str> {
        match self.kind {
            ErrorKind::NftMissing => Some("install nftables (apt install nftables), or use --network none"),
            ErrorKind::RulesetRefused => Some("run garth doctor; or use --network none"),
            ErrorKind::NotPermitted => Some("the daemon needs root's CAP_NET_ADMIN and CAP_SYS_ADMIN"),
            ErrorKind::Kernel => Some("run garth doctor to see which kernel feature is missing"),
            ErrorKind::NoFreeSubnet => Some("remove a route that covers 10.0.0.0/8, or use --network none"),
            ErrorKind::AddressesExhausted => Some("stop some sandboxes, or use a second data directory"),
            ErrorKind::Record => Some("move network.json out of the data directory; it is made again"),
            ErrorKind::InvalidTag
            | ErrorKind::AlreadyLeased
            | ErrorKind::HostNamespace
            | ErrorKind::Dns
            | ErrorKind::Closed => None,
        }
    }
}
