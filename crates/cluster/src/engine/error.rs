use std::fmt;

use garth_spec::{InvalidSpec, ProjectName, Runtime};

/// What kind of thing went wrong, for callers that decide by it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ErrorKind {
    /// There is no cluster to talk to.
    #[error("no cluster is configured")]
    NoCluster,
    /// No project has this name.
    #[error("there is no project {0}")]
    NoProject(ProjectName),
    /// The name is taken.
    #[error("project {0} exists already")]
    ProjectExists(ProjectName),
    /// The project is being removed.
    #[error("project {0} is being removed")]
    BeingRemoved(String),
    /// The project has no sandbox and none was to be started.
    #[error("project {0} is not running")]
    NotRunning(ProjectName),
    /// Only ephemeral projects go with their last hold.
    #[error("project {0} is not ephemeral: there is nothing to hold")]
    NotEphemeral(ProjectName),
    /// The spec cannot be carried out anywhere.
    #[error(transparent)]
    Spec(#[from] InvalidSpec),
    /// The API server refuses the object: a schema, a policy, a quota.
    #[error("the cluster refuses it: {0}")]
    Refused(String),
    /// Not on a cluster.
    #[error("{what} is not to be had on a cluster")]
    Unsupported {
        /// What was asked for.
        what: &'static str,
        /// What does it instead.
        instead: &'static str,
    },
    /// The runtime cannot be had; nothing weaker is taken in its place.
    #[error("{0}")]
    RuntimeUnavailable(String),
    /// A runtime below the one that the project may have at the least.
    #[error("the runtime {runtime} is weaker than {at_least}, the least that this project may have")]
    RuntimeTooWeak {
        /// What was asked for.
        runtime: Runtime,
        /// What was promised.
        at_least: Runtime,
    },
    /// The sandbox did not start.
    #[error("the sandbox did not start ({reason}): {message}")]
    Start {
        /// The reason of the project's condition.
        reason: String,
        /// Its message.
        message: String,
    },
    /// No node had room for it in time.
    #[error("no node had room for the sandbox in time: {0}")]
    NoCapacity(String),
    /// Nothing did what the project asks for.
    #[error("the operator did not do it in time (the project is {0})")]
    Late(String),
    /// The agent did not answer.
    #[error("the agent does not answer")]
    Agent,
    /// The project's Secret holds no token.
    #[error("the Secret of the project holds no token of 64 hexadecimal digits")]
    Token,
    /// The gateway may not do that.
    #[error("the gateway has no right to it: {0}")]
    Forbidden(String),
    /// The API server failed, or cannot be reached.
    #[error("the API server of the cluster failed")]
    Api,
    /// The gateway is going down.
    #[error("the gateway is going down")]
    Closing,
}

/// An operation that failed: what kind of failure, and why.
#[derive(Debug)]
pub struct Error {
    kind: ErrorKind,
    doing: Option<&'static str>,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    pub(crate) fn because(kind: ErrorKind, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self { kind, doing: None, source: Some(source.into()) }
    }

    #[must_use]
    pub(crate) fn doing(mut self, doing: &'static str) -> Self {
        self.doing.get_or_insert(doing);
        self
    }

    /// What callers decide by.
    pub fn kind(&self) -> &ErrorKind {
        &self.kind
    }

    /// What the user can try.
    pub fn suggestion(&self) -> Option<String> {
        Some(match &self.kind {
            ErrorKind::NoProject(_) => "`garth ls -a` shows the projects there are".to_owned(),
            ErrorKind::ProjectExists(name) => {
                format!("choose another name, or `garth exec {name}` to use that project")
            }
            ErrorKind::NotRunning(name) => format!("garth start {name}"),
            ErrorKind::Unsupported { instead, .. } => (*instead).to_owned(),
            ErrorKind::RuntimeTooWeak { at_least, .. } => format!("ask for --runtime {at_least} or a stronger one"),
            ErrorKind::RuntimeUnavailable(_) => {
                "`kubectl get isolationclasses,runtimeclasses` shows what there is".to_owned()
            }
            ErrorKind::Late(_) => "is the operator running? `kubectl -n garth get pods,leases` tells".to_owned(),
            ErrorKind::NoCapacity(_) => "`kubectl describe project` says what the autoscaler did about it".to_owned(),
            ErrorKind::Start { .. } => "`kubectl describe project,pod` says more".to_owned(),
            ErrorKind::Agent => {
                "`kubectl describe project,pod` says more; a sandbox that another version of Garth made is \
                                 made again after `kubectl delete pod`"
                    .to_owned()
            }
            ErrorKind::NoCluster => "set KUBECONFIG to the file that kubectl uses, or run it in a Pod".to_owned(),
            ErrorKind::Closing => "try again".to_owned(),
            _ => return None,
        })
    }

    /// The messages of the causes, outermost first.
    pub fn causes(&self) -> Vec<String> {
        let mut causes = Vec::new();
        let mut next: Option<&(dyn std::error::Error + 'static)> = self.source.as_deref().map(|cause| cause as _);
        while let Some(cause) = next {
            causes.push(cause.to_string());
            next = cause.source();
        }
        causes
    }
}

impl From<ErrorKind> for Error {
    fn from(kind: ErrorKind) -> Self {
        Self { kind, doing: None, source: None }
    }
}

impl From<InvalidSpec> for Error {
    fn from(invalid: InvalidSpec) -> Self {
        ErrorKind::from(invalid).into()
    }
}

impl From<kube::Error> for Error {
    fn from(error: kube::Error) -> Self {
        match &error {
            kube::Error::Api(status) => match status.code {
                401 => ErrorKind::Forbidden(status.message.clone()).into(),
                // A quota is refused with 403, too, as are webhooks and policies; a right that is missing says so.
                403 if status.message.contains("cannot ") && status.message.contains(" resource ") => {
                    ErrorKind::Forbidden(status.message.clone()).into()
                }
                400..500 => ErrorKind::Refused(status.message.clone()).into(),
                _ => Self::because(ErrorKind::Api, error),
            },
            _ => Self::because(ErrorKind::Api, error),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.doing {
            Some(doing) => write!(f, "{doing}: {}", self.kind),
            None => self.kind.fmt(f),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_deref().map(|cause| cause as _)
    }
}
