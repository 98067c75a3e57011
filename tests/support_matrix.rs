//! The support matrix is what the code says, and what the code says is what a server does: every published place is asked.

use std::collections::BTreeSet;

use http::{Method, Request};
use orchestrator::{
    Cluster, apiserver,
    kube::{Client, client::Body},
};
use serde_json::{Value, json};

/// Resources and subresources of the stable API, as published with Kubernetes 1.36.
const PUBLISHED: &str = include_str!("data/api-resources.tsv");

/// One line of the published table.
struct Place {
    version: &'static str,
    resource: &'static str,
    kind: &'static str,
    namespaced: bool,
    verbs: Vec<&'static str>,
}

fn places() -> Vec<Place> {
    let rows = PUBLISHED.lines().filter(|line| !line.starts_with('#'));
    rows.map(|line| {
        let columns: Vec<&str> = line.split('\t').collect();
        let [version, resource, _, kind, namespaced, _, _, _, verbs] = columns[..] else { panic!("{line:?}") };
        Place { version, resource, kind, namespaced: namespaced == "true", verbs: verbs.split(',').collect() }
    })
    .collect()
}

#[test]
fn the_document_is_fresh() {
    let written = include_str!("../docs/support-matrix.md");
    assert!(
        written == apiserver::support_matrix(),
        "docs/support-matrix.md is stale: cargo run --example support_matrix > docs/support-matrix.md"
    );
}

/// `apiVersion` and resource or subresource.
type Places = BTreeSet<(String, String)>;

/// What the matrix says: places that are served, and places that are refused.
fn matrix() -> (Places, Places) {
    let text = apiserver::support_matrix();
    let (served, rest) = text.split_once("## Refused").unwrap();
    let (refused, _) = rest.split_once("## Without effect").unwrap();
    let cells = |line: &str| line.split('|').map(|cell| cell.trim().to_owned()).collect::<Vec<_>>();
    let rows = |text: &str| {
        let lines = text.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| Place"));
        lines.map(cells).filter(|cells| cells[2] != "Version").collect::<Vec<_>>()
    };
    let mut places = BTreeSet::new();
    for row in rows(served) {
        let (resource, version) = (&row[1], &row[2]);
        if row[5] != "refused" {
            places.insert((version.clone(), resource.clone()));
        }
        for subresource in row[4].split(", ").filter(|name| !name.is_empty()) {
            places.insert((version.clone(), format!("{resource}/{subresource}")));
        }
    }
    (places, rows(refused).into_iter().map(|row| (row[2].clone(), row[1].clone())).collect())
}

#[test]
fn every_published_place_is_in_the_matrix() {
    let (served, refused) = matrix();
    let published: Places =
        places().iter().map(|place| (place.version.to_owned(), place.resource.to_owned())).collect();
    let named: BTreeSet<_> = served.union(&refused).cloned().collect();
    assert_eq!(published, named);
    assert!(served.is_disjoint(&refused));
}

#[tokio::test]
async fn what_is_in_the_matrix_is_so() {
    let (_, refused) = matrix();
    let cluster = Cluster::builder().control_plane(false).start().await.unwrap();
    let client = cluster.kube_client();
    let mut wrong = Vec::new();
    for place in places() {
        let is_refused = refused.contains(&(place.version.to_owned(), place.resource.to_owned()));
        let mut answered = false;
        for verb in &place.verbs {
            let (code, status) = ask(&client, &place, verb).await;
            let says_no = is_no(code, &status);
            answered |= !says_no;
            if says_no && !is_refused {
                wrong.push(format!("{verb} {} {}: {code} {}", place.version, place.resource, status["message"]));
            }
        }
        // The list of an empty kind is an answer, too.
        if answered && is_refused && place.resource != "componentstatuses" {
            wrong.push(format!("{} {} is listed as refused, and answers", place.version, place.resource));
        }
    }
    cluster.shutdown().await;
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Whether an answer is about the place and not about the object: there is no such path, method or feature.
fn is_no(code: u16, status: &Value) -> bool {
    let has_object = status["details"]["name"].is_string();
    code == 405 || code == 501 || (code == 404 && !has_object)
}

/// Asks for something that changes nothing, and gives the code with the body.
async fn ask(client: &Client, place: &Place, verb: &str) -> (u16, Value) {
    let root = if place.version.contains('/') { "/apis" } else { "/api" };
    let namespace = if place.namespaced { "/namespaces/default" } else { "" };
    let (resource, subresource) = place.resource.split_once('/').unwrap_or((place.resource, ""));
    let collection = format!("{root}/{}{namespace}/{resource}", place.version);
    let mut object = format!("{collection}/some");
    if !subresource.is_empty() {
        object = format!("{object}/{subresource}");
    }
    let create = if subresource.is_empty() { collection.clone() } else { object.clone() };
    let (method, path) = match verb {
        "get" => (Method::GET, object),
        "list" => (Method::GET, collection),
        "watch" => (Method::GET, format!("{collection}?watch=true&timeoutSeconds=1")),
        "create" => (Method::POST, format!("{create}?dryRun=All")),
        "update" => (Method::PUT, format!("{object}?dryRun=All")),
        "patch" => (Method::PATCH, format!("{object}?dryRun=All")),
        "delete" => (Method::DELETE, format!("{object}?dryRun=All")),
        "deletecollection" => (Method::DELETE, format!("{collection}?dryRun=All")),
        other => panic!("{other:?} is no verb"),
    };
    let body = match verb {
        "create" | "update" => json!({"apiVersion": place.version, "kind": place.kind, "metadata": {"name": "some"}}),
        _ => json!({}),
    };
    let content = if verb == "patch" { "application/merge-patch+json" } else { "application/json" };
    let body = if method == Method::GET { Vec::new() } else { body.to_string().into_bytes() };
    let request = Request::builder().method(method).uri(path).header("content-type", content);
    let response = client.send(request.body(Body::from(body)).unwrap()).await.unwrap();
    let code = response.status().as_u16();
    // A watch has a body without an end, and is well as soon as it is there.
    let status = match (verb, code) {
        ("watch", 200) => Value::Null,
        _ => serde_json::from_slice(&response.into_body().collect_bytes().await.unwrap()).unwrap_or_default(),
    };
    (code, status)
}
