//! The real `kubectl`, verb by verb, against a server whose only node is simulated.
#![expect(clippy::disallowed_methods, reason = "one thread waits for what another one does")]

mod applying;
mod asking;
mod changing;
mod creating;
mod printing;
#[path = "../kubectl/reading.rs"]
mod reading;
mod selecting;
#[path = "../support/served.rs"]
mod served;
#[path = "../support/kubectl.rs"]
mod support;

use orchestrator::runtime_sim::{PortAnswer, Script};
use served::Served;
use support::Kubectl;

/// A cluster behind a loopback port, and who asks it.
struct Stage {
    kubectl: Kubectl,
    served: Served,
}

impl Stage {
    fn new(name: &str) -> Self {
        let script = Script::forever().listens(8080, PortAnswer::Http { status: 200, body: "hello".to_owned() });
        let served = Served::start(&format!("verbs-{name}"), Some(script));
        let kubectl = Kubectl::new(&served.kubeconfig, served.directory.join("home"));
        kubectl.ok("wait --for=create serviceaccount/default --timeout=30s");
        Self { kubectl, served }
    }

    /// Writes a file and returns its path.
    fn write(&self, name: &str, text: &str) -> String {
        let path = self.served.directory.join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    }
}

/// The manifest of a config map with the label `set: x`.
fn config_map(name: &str, data: &str) -> String {
    format!("---\napiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}, labels: {{set: x}}}}\ndata: {data}\n")
}

/// The manifest of a Deployment of one pod, as a line of JSON.
const WEB: &str = r#"{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"web"},"spec":{"replicas":1,
"selector":{"matchLabels":{"app":"web"}},"template":{"metadata":{"labels":{"app":"web"}},"spec":{
"terminationGracePeriodSeconds":0,"containers":[{"name":"main","image":"web:1"},{"name":"side","image":"side:1"}]}}}}"#;
