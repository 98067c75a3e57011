//! Names, labels and environment of any legal form.

use std::collections::BTreeMap;

use orchestrator_core::{
    env::Env,
    runtime::{ContainerKey, PullRequest},
};

use super::{
    Workbench,
    stage::{Stage, exit, sandbox},
};
use crate::harness::Outcome;

/// Longest name of a container, and longest part of a label, in characters.
const NAME_CHARACTERS: usize = 63;
/// Longest prefix of a label's key, in characters.
const PREFIX_CHARACTERS: usize = 253;
/// Longest annotation that a cluster's other limits leave room for, in bytes.
const ANNOTATION_BYTES: usize = 100_000;

/// Labels as Kubernetes allows them: of one letter and of the longest form, and empty.
fn labels() -> BTreeMap<String, String> {
    let long = "a".repeat(NAME_CHARACTERS);
    let prefix: String = "sub.".repeat(PREFIX_CHARACTERS).chars().take(PREFIX_CHARACTERS - 1).chain(['z']).collect();
    BTreeMap::from([
        ("a".to_owned(), String::new()),
        ("Mixed_Case.and-more".to_owned(), "Some_Value.1-2".to_owned()),
        ("app.kubernetes.io/name".to_owned(), "web".to_owned()),
        (format!("{prefix}/{long}"), long),
    ])
}

/// Annotations, whose values may be any text.
fn annotations() -> BTreeMap<String, String> {
    BTreeMap::from([
        (
            "example.org/text".to_owned(),
            "{\"a\": [1, 'two'],\n\t\"b\": \"=\\\\,\"}\u{0}\u{7f} \u{e4}\u{1f980}\r\n".to_owned(),
        ),
        ("example.org/empty".to_owned(), String::new()),
        ("example.org/long".to_owned(), "x".repeat(ANNOTATION_BYTES)),
    ])
}

/// What is legal as a name, a label or an annotation comes back as it was given, from every instance.
pub async fn names_and_labels_of_any_form(workbench: &dyn Workbench, env: &Env) -> Outcome {
    let mut stage = Stage::new(workbench, env);
    let mut config = sandbox("a");
    config.name = format!("{}.{}", "n".repeat(NAME_CHARACTERS), "m".repeat(NAME_CHARACTERS));
    config.namespace = "s".repeat(NAME_CHARACTERS);
    config.labels = labels().into();
    config.annotations = annotations().into();
    let pod = stage.runtime.run_sandbox(&config).await.unwrap();
    let mut containers = Vec::new();
    for name in ["x".to_owned(), "0-1".to_owned(), "c".repeat(NAME_CHARACTERS)] {
        let mut config = workbench.container(&name, &exit(0));
        config.key = ContainerKey { name, attempt: 4_000_000_000 };
        config.labels = labels().into();
        config.annotations = annotations().into();
        let request = PullRequest { image: config.image.clone(), credentials: Vec::new() };
        stage.runtime.pull_image(&request).await.unwrap();
        containers.push((stage.runtime.create_container(&pod.id, &config).await.unwrap(), config));
    }
    for _ in 0..2 {
        let sandboxes = stage.runtime.list_sandboxes().await.unwrap();
        let [seen] = &sandboxes[..] else { panic!("{sandboxes:?}") };
        assert_eq!((&seen.name, &seen.namespace), (&config.name, &config.namespace));
        assert_eq!((&seen.labels, &seen.annotations), (&config.labels, &config.annotations));
        for (id, config) in &containers {
            let seen = stage.runtime.inspect_container(id).await.unwrap();
            assert_eq!((&seen.key, &seen.labels), (&config.key, &config.labels));
            assert_eq!(seen.annotations, config.annotations);
        }
        assert_eq!(stage.runtime.list_containers().await.unwrap().len(), containers.len());
        stage.again();
    }
    for (id, _) in &containers {
        stage.runtime.start_container(id).await.unwrap();
        assert_eq!(stage.ended(id).await.exit_code(), Some(0), "{id}");
    }
    stage.runtime.remove_sandbox(&pod.id).await.unwrap();
    Outcome::Held
}
