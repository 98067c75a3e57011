//! A cloud that is this machine: services of type `LoadBalancer` get one of its addresses.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use k8s_openapi::api::core::v1::{LoadBalancerIngress, LoadBalancerStatus, Node, Service};
use orchestrator_core::meta;

use super::provider::{CloudError, CloudProvider, LoadBalancers};

/// Gives out addresses of this machine, each port of each to one service. What leads from there to pods is the proxy's business.
#[derive(Debug)]
pub struct LocalCloud {
    addresses: Vec<IpAddr>,
    /// What services have, by their UIDs.
    given: Mutex<BTreeMap<String, Given>>,
}

/// The addresses of one service, and the ports that it has on them.
#[derive(Clone, Debug, Default, PartialEq)]
struct Given {
    addresses: Vec<IpAddr>,
    ports: BTreeSet<(String, i32)>,
}

impl LocalCloud {
    /// A cloud with these addresses.
    pub fn new(addresses: impl IntoIterator<Item = IpAddr>) -> Self {
        Self { addresses: addresses.into_iter().collect(), given: Mutex::default() }
    }

    fn given(&self) -> MutexGuard<'_, BTreeMap<String, Given>> {
        self.given.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl CloudProvider for LocalCloud {
    fn load_balancers(&self) -> Option<&dyn LoadBalancers> {
        Some(self)
    }
}

#[async_trait]
impl LoadBalancers for LocalCloud {
    async fn get(&self, service: &Service) -> Result<Option<LoadBalancerStatus>, CloudError> {
        Ok(self.given().get(meta::uid(&service.metadata)).map(status))
    }

    async fn ensure(&self, service: &Service, _nodes: &[Arc<Node>]) -> Result<LoadBalancerStatus, CloudError> {
        let mut all = self.given();
        let uid = meta::uid(&service.metadata);
        let others: Vec<&Given> = all.iter().filter(|(other, _)| *other != uid).map(|(_, given)| given).collect();
        let given = choose(service, &self.addresses, &others).map_err(CloudError::Failed)?;
        let status = status(&given);
        all.insert(uid.to_owned(), given);
        Ok(status)
    }

    async fn update(&self, _service: &Service, _nodes: &[Arc<Node>]) -> Result<(), CloudError> {
        Ok(())
    }

    async fn delete(&self, service: &Service) -> Result<(), CloudError> {
        self.given().remove(meta::uid(&service.metadata));
        Ok(())
    }
}

fn status(given: &Given) -> LoadBalancerStatus {
    let ingress = |address: &IpAddr| LoadBalancerIngress { ip: Some(address.to_string()), ..Default::default() };
    LoadBalancerStatus { ingress: Some(given.addresses.iter().map(ingress).collect()) }
}

/// An address of each family of the service, on which its ports are free: the one that it asks for or has, or else the first.
fn choose(service: &Service, addresses: &[IpAddr], others: &[&Given]) -> Result<Given, String> {
    let Some(spec) = &service.spec else { return Ok(Given::default()) };
    let port = |protocol: &Option<String>, port: i32| (protocol.clone().unwrap_or_else(|| "TCP".to_owned()), port);
    let ports: BTreeSet<(String, i32)> = spec.ports.iter().flatten().map(|it| port(&it.protocol, it.port)).collect();
    let is_free = |address: &&IpAddr| {
        others.iter().all(|other| !other.addresses.contains(address) || other.ports.is_disjoint(&ports))
    };
    let asked = spec.load_balancer_ip.iter().filter(|text| !text.is_empty()).filter_map(|text| text.parse().ok());
    let asked: Vec<IpAddr> = asked.collect();
    let had = service.status.iter().flat_map(|status| status.load_balancer.iter());
    let had = had.flat_map(|status| status.ingress.iter().flatten()).filter_map(|it| it.ip.as_ref()?.parse().ok());
    let preferred: Vec<IpAddr> = asked.iter().copied().chain(had).collect();
    let families = spec.ip_families.clone().unwrap_or_else(|| vec!["IPv4".to_owned()]);
    let mut chosen = Vec::new();
    for family in families {
        let of_family = || addresses.iter().filter(|address| address.is_ipv6() == (family == "IPv6"));
        let must = asked.iter().find(|address| address.is_ipv6() == (family == "IPv6"));
        let best = || preferred.iter().find_map(|wanted| of_family().filter(is_free).find(|it| *it == wanted));
        let found = match must {
            Some(must) => of_family().filter(is_free).find(|it| *it == must),
            None => best().or_else(|| of_family().find(is_free)),
        };
        chosen.extend(found);
    }
    if chosen.is_empty() {
        let shown: Vec<String> = ports.iter().map(|(protocol, port)| format!("{port}/{protocol}")).collect();
        return Err(format!("no address has all of these ports free: {}", shown.join(", ")));
    }
    Ok(Given { addresses: chosen, ports })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn service(ports: &[i32], families: &[&str], wanted: Option<&str>) -> Service {
        let ports: Vec<_> = ports.iter().map(|port| json!({"port": port, "protocol": "TCP"})).collect();
        let spec = json!({"ports": ports, "ipFamilies": families, "loadBalancerIP": wanted});
        serde_json::from_value(json!({"metadata": {"uid": "u"}, "spec": spec})).unwrap()
    }

    fn pool() -> Vec<IpAddr> {
        ["192.0.2.1", "192.0.2.2", "2001:db8::1"].map(|text| text.parse().unwrap()).to_vec()
    }

    fn shown(given: Result<Given, String>) -> Vec<String> {
        given.unwrap().addresses.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn ports_of_an_address_belong_to_one_service() {
        let web = choose(&service(&[80, 443], &["IPv4"], None), &pool(), &[]).unwrap();
        assert_eq!(shown(Ok(web.clone())), ["192.0.2.1"]);
        assert_eq!(shown(choose(&service(&[22], &["IPv4"], None), &pool(), &[&web])), ["192.0.2.1"]);
        let second = choose(&service(&[443], &["IPv4", "IPv6"], None), &pool(), &[&web]);
        assert_eq!(shown(second.clone()), ["192.0.2.2", "2001:db8::1"]);
        let error = choose(&service(&[443], &["IPv4"], None), &pool(), &[&web, &second.unwrap()]).unwrap_err();
        assert_eq!(error, "no address has all of these ports free: 443/TCP");
    }

    #[test]
    fn what_is_asked_for_is_given_or_nothing() {
        assert_eq!(shown(choose(&service(&[80], &["IPv4"], Some("192.0.2.2")), &pool(), &[])), ["192.0.2.2"]);
        assert!(choose(&service(&[80], &["IPv4"], Some("192.0.2.9")), &pool(), &[]).is_err());
        let mut known = service(&[80], &["IPv4"], None);
        known.status = serde_json::from_value(json!({"loadBalancer": {"ingress": [{"ip": "192.0.2.2"}]}})).unwrap();
        assert_eq!(shown(choose(&known, &pool(), &[])), ["192.0.2.2"], "what it has it keeps");
    }

    proptest! {
        #[test]
        fn no_port_is_given_twice(services in prop::collection::vec(prop::collection::btree_set(1..6_i32, 1..3), 1..8)) {
            let mut given: Vec<Given> = Vec::new();
            for ports in services {
                let ports: Vec<i32> = ports.into_iter().collect();
                let others: Vec<&Given> = given.iter().collect();
                if let Ok(more) = choose(&service(&ports, &["IPv4"], None), &pool(), &others) {
                    given.push(more);
                }
            }
            let mut seen = BTreeSet::new();
            for one in &given {
                for address in &one.addresses {
                    for port in &one.ports {
                        prop_assert!(seen.insert((address, port)));
                    }
                }
            }
        }
    }
}
