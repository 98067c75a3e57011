//! A controller with a mistake that no ordinary test shows, and how it is found.
//!
//! `cargo run --example explore` explores a reconciler that makes two config maps for each one labelled `app`. It takes the
//! second for granted once the first is there, so whoever dies in between leaves half of the work. The smallest history that
//! shows it is printed; the corrected reconciler passes.
#![expect(clippy::print_stdout, reason = "a program for people to look at")]

use std::process::ExitCode;

use async_trait::async_trait;
use orchestrator::{
    client::Api,
    controller::{Action, Context, Reconciler},
    core::status::{ApiError, ApiResult},
    k8s_openapi::api::core::v1::ConfigMap,
    kube::api::PostParams,
    object::ObjectKey,
};
use orchestrator_sim::explore::{Explorer, Failure, Objects, explore_reconciler};
use serde_json::json;

const NAMESPACE: &str = "default";

/// Makes `NAME-settings` and `NAME-secrets` for each config map `NAME`.
struct Pairs {
    /// Whether it looks at both of them.
    corrected: bool,
}

#[async_trait]
impl Reconciler for Pairs {
    type Object = ConfigMap;
    type Error = ApiError;

    async fn reconcile(&self, key: &ObjectKey, context: &Context) -> ApiResult<Action> {
        let maps: Api<ConfigMap> = Api::namespaced(context.client(), NAMESPACE);
        let (settings, secrets) = (format!("{}-settings", key.name), format!("{}-secrets", key.name));
        let is_child = key.name.ends_with("-settings") || key.name.ends_with("-secrets");
        if is_child || key.namespace != NAMESPACE || maps.get_opt(&key.name).await?.is_none() {
            return Ok(Action::Done);
        }
        if !self.corrected && maps.get_opt(&settings).await?.is_some() {
            return Ok(Action::Done);
        }
        make(&maps, &settings).await?;
        make(&maps, &secrets).await?;
        Ok(Action::Done)
    }
}

async fn make(maps: &Api<ConfigMap>, name: &str) -> ApiResult<()> {
    match maps.create(&PostParams::default(), &map(name)).await {
        Err(error) if !error.is_already_exists() => Err(error),
        _ => Ok(()),
    }
}

fn map(name: &str) -> ConfigMap {
    let mut map = ConfigMap::default();
    map.metadata.name = Some(name.to_owned());
    map.metadata.namespace = Some(NAMESPACE.to_owned());
    map.data = Some([("from".to_owned(), json!("the example").to_string())].into());
    map
}

/// What has to hold of either.
fn explorer(corrected: bool) -> Explorer {
    let there = |objects: &Objects, name: &str| objects.get::<ConfigMap>(NAMESPACE, name).is_some();
    explore_reconciler(move || Pairs { corrected })
        .creates(&map("web"))
        .eventually("both config maps are there", move |objects| {
            !there(objects, "web") || there(objects, "web-settings") && there(objects, "web-secrets")
        })
        .ends_the_same()
}

fn main() -> ExitCode {
    match explorer(false).run() {
        Err(Failure::Broken(counterexample)) => println!("The reconciler is wrong:\n\n{counterexample}"),
        other => {
            println!("the mistake was not found: {other:?}");
            return ExitCode::FAILURE;
        }
    }
    match explorer(true).run() {
        Ok(report) => println!("The corrected one passes {} runs.", report.runs),
        Err(failure) => {
            println!("{failure}");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}
