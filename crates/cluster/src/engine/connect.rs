use std::time::Duration;

use kube::client::ClientBuilder;
use kube::{Client, Config};
use tower::timeout::TimeoutLayer;

use super::error::{Error, ErrorKind};

/// How long an API server may take for the head of an answer: longer than its own limit on a request (60 s).
const ANSWERED_WITHIN: Duration = Duration::from_secs(75);

/// A client of the cluster that `KUBECONFIG` or the Pod's service account leads to.
///
/// # Errors
/// When neither leads to one.
pub async fn connect() -> Result<Client, Error> {
    let config = Config::infer().await.map_err(|error| Error::because(ErrorKind::NoCluster, error))?;
    client(config, ANSWERED_WITHIN).map_err(|error| Error::because(ErrorKind::NoCluster, error))
}

/// A client whose requests fail when their answers do not begin within this time.
fn client(config: Config, within: Duration) -> Result<Client, kube::Error> {
    Ok(ClientBuilder::try_from(config)?.with_layer(&TimeoutLayer::new(within)).build())
}

#[cfg(test)]
mod tests {
    use kube::Api;

    use super::*;
    use crate::resources::Project;

    #[tokio::test]
    async fn an_api_server_that_takes_requests_and_is_silent_is_not_waited_for() {
        let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = silent.local_addr().expect("an address");
        let config = Config::new(format!("http://{address}").parse().expect("an address"));
        let client = client(config, Duration::from_millis(50)).expect("a client");
        let projects: Api<Project> = Api::namespaced(client, "default");
        let (error, taken) = tokio::join!(projects.get("web"), silent.accept());
        taken.expect("the connection was taken");
        assert!(matches!(error, Err(kube::Error::Service(_))), "{error:?}");
    }
}
