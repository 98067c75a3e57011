//! The cluster's network on the engine.

use bollard::{
    models::{Ipam, IpamConfig, NetworkCreateRequest},
    query_parameters::ListNetworksOptions,
};
use orchestrator_core::runtime::RuntimeError;

use crate::{
    config::PodNetwork,
    engine::Engine,
    limits::{NETWORK_ATTEMPTS, NETWORK_PAUSE},
    names::CLUSTER,
};

/// Which network pods are on, by its name or identity; made if it is the cluster's and not there.
///
/// Names of networks need not be unique to the engine, and it finds a pod's network by name: of several that were made at the
/// same time, all take the oldest, and the others go. Where they are unique, the name is what counts.
pub(crate) async fn ensure(
    engine: &Engine,
    network: &PodNetwork,
    cluster: &str,
    unique_names: bool,
) -> Result<String, RuntimeError> {
    let subnet = match network {
        PodNetwork::Existing(name) => return Ok(name.clone()),
        PodNetwork::Cluster { subnet } => subnet.clone(),
    };
    for _ in 0..NETWORK_ATTEMPTS {
        let mut known = of_cluster(engine, cluster, unique_names).await?.into_iter();
        match known.next() {
            Some(first) => {
                for other in known {
                    remove_one(engine, &other).await?;
                }
                return Ok(first);
            }
            None => create(engine, subnet.clone(), cluster, unique_names).await?,
        }
    }
    Err(RuntimeError::internal("making the cluster's network", "somebody removes it as soon as it is there"))
}

/// Makes the network, unless somebody else was quicker.
async fn create(
    engine: &Engine,
    subnet: Option<String>,
    cluster: &str,
    unique_names: bool,
) -> Result<(), RuntimeError> {
    let config = subnet.map(|subnet| IpamConfig { subnet: Some(subnet), ..IpamConfig::default() });
    let request = NetworkCreateRequest {
        name: format!("orchestrator-{cluster}"),
        driver: Some("bridge".to_owned()),
        ipam: config.map(|config| Ipam { config: Some(vec![config]), ..Ipam::default() }),
        labels: Some([(CLUSTER.to_owned(), cluster.to_owned())].into()),
        ..NetworkCreateRequest::default()
    };
    match engine.call(|client| async move { client.create_network(request).await }).await {
        Ok(_) => Ok(()),
        Err(error) if error.is_conflict() => Ok(()),
        // The engine says "forbidden" of addresses that are in use: by the cluster's network that has just been made, or not.
        Err(error) if matches!(error.status(), Some(400 | 403)) => {
            // It is listed a little after its addresses are taken.
            for _ in 0..NETWORK_ATTEMPTS {
                if !of_cluster(engine, cluster, unique_names).await?.is_empty() {
                    return Ok(());
                }
                engine.env.sleep(NETWORK_PAUSE).await;
            }
            Err(RuntimeError::Invalid(format!("the cluster's network: {error}")))
        }
        Err(error) => Err(error.during("making the cluster's network")),
    }
}

/// Removes what was made for the cluster. One that pods of another node are on is left.
pub(crate) async fn remove(
    engine: &Engine,
    network: &PodNetwork,
    cluster: &str,
    unique_names: bool,
) -> Result<(), RuntimeError> {
    if matches!(network, PodNetwork::Existing(_)) {
        return Ok(());
    }
    for id in of_cluster(engine, cluster, unique_names).await? {
        remove_one(engine, &id).await?;
    }
    Ok(())
}

async fn remove_one(engine: &Engine, id: &str) -> Result<(), RuntimeError> {
    match engine.call(|client| async move { client.remove_network(id).await }).await {
        Ok(()) => Ok(()),
        // The engine says "forbidden" of one that is in use.
        Err(error) if error.is_not_found() || matches!(error.status(), Some(403 | 409)) => Ok(()),
        Err(error) => Err(error.during("removing the cluster's network")),
    }
}

/// Identities of the cluster's networks, or their names where these are unique, the oldest first.
async fn of_cluster(engine: &Engine, cluster: &str, unique_names: bool) -> Result<Vec<String>, RuntimeError> {
    let filters = [("label".to_owned(), vec![format!("{CLUSTER}={cluster}")])].into();
    let options = ListNetworksOptions { filters: Some(filters) };
    let list = engine.call(|client| async move { client.list_networks(Some(options)).await }).await;
    let list = list.map_err(|error| error.during("listing networks"))?;
    let known = list.into_iter().filter_map(|network| {
        let identity = if unique_names { network.name } else { network.id };
        Some((network.created, identity?))
    });
    let mut networks: Vec<_> = known.collect();
    networks.sort();
    Ok(networks.into_iter().map(|(_, id)| id).collect())
}
