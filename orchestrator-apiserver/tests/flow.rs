//! Priority and fairness over HTTP: a flood leaves others served, and the objects that decide are kept.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures::future;
use http::{HeaderMap, Request};
use http_body_util::{BodyExt, Full};
use orchestrator_apiserver::{ApiServer, Attributes, Authorizer, Config, Decision, http::HttpService};
use orchestrator_core::{
    client::UserInfo,
    env::{Env, Simulation},
    store::Store,
};
use orchestrator_store_mem::MemStore;
use orchestrator_testkit::wrap::SlowStore;
use serde_json::{Value, json};
use tower_service::Service;

const SCHEMAS: &str = "/apis/flowcontrol.apiserver.k8s.io/v1/flowschemas";
const LEVELS: &str = "/apis/flowcontrol.apiserver.k8s.io/v1/prioritylevelconfigurations";
const NAMESPACE: &str = "/api/v1/namespaces/default";

/// Everybody may do everything, so that only numbers decide.
#[derive(Debug)]
struct AllowAll;

impl Authorizer for AllowAll {
    fn authorize(&self, _: &UserInfo, _: &Attributes<'_>) -> Decision {
        Decision::Allow
    }

    fn authorize_path(&self, _: &UserInfo, _: &str, _: &str) -> Decision {
        Decision::Allow
    }
}

struct Api {
    env: Env,
    store: Arc<dyn Store>,
    server: ApiServer,
}

struct Answer {
    code: u16,
    headers: HeaderMap,
    body: Bytes,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }
}

impl Api {
    async fn start(env: &Env) -> Self {
        let memory: Arc<dyn Store> = Arc::new(MemStore::new(env));
        let store: Arc<dyn Store> = Arc::new(SlowStore::new(memory, env, Duration::from_millis(20)));
        // Two seats for `global-default`.
        let config = Config { requests_in_flight: 20, ..Config::default() };
        let builder = ApiServer::builder(env, store.clone()).config(config).authorizer(Arc::new(AllowAll));
        Self { env: env.clone(), store, server: builder.build().await.unwrap() }
    }

    async fn send(&self, user: &UserInfo, method: &str, path: &str, body: Value) -> Answer {
        let media = if method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
        let request = Request::builder().method(method).uri(path).header("content-type", media);
        let body = if body.is_null() { Bytes::new() } else { body.to_string().into() };
        let mut service = HttpService::new(&self.server, user.clone());
        let response = service.call(request.body(Full::new(body)).unwrap()).await.unwrap();
        let (parts, body) = response.into_parts();
        Answer { code: parts.status.as_u16(), headers: parts.headers, body: body.collect().await.unwrap().to_bytes() }
    }

    async fn get(&self, user: &UserInfo, path: &str) -> Answer {
        self.send(user, "GET", path, Value::Null).await
    }

    /// Lets followers follow.
    async fn settle(&self) {
        self.env.sleep(Duration::from_secs(2)).await;
    }
}

fn user(name: &str) -> UserInfo {
    UserInfo::new(name, &["system:authenticated"])
}

fn run(test: impl AsyncFn(&Api)) {
    for seed in 0..4 {
        let simulation = Simulation::new(seed);
        let env = simulation.env();
        simulation.run(async { test(&Api::start(&env).await).await }).unwrap();
    }
}

#[test]
fn a_flood_from_one_user_leaves_others_served() {
    run(async |api| {
        let (flooder, admin) = (user("flooder"), UserInfo::admin());
        let flood = future::join_all((0..1000).map(|_| api.get(&flooder, NAMESPACE)));
        let others = async {
            api.env.sleep(Duration::from_millis(5)).await;
            let before = api.env.monotonic();
            let users: Vec<UserInfo> = (0..5).map(|number| user(&format!("other-{number}"))).collect();
            let answers = future::join_all(users.iter().map(|user| api.get(user, NAMESPACE))).await;
            assert!(answers.iter().all(|answer| answer.code == 200));
            // Fewer rounds than the flood has requests in one queue.
            assert!(api.env.monotonic() - before < Duration::from_secs(1));
            assert_eq!(api.get(&admin, NAMESPACE).await.code, 200);
        };
        let (answers, ()) = future::join(flood, others).await;
        let (served, refused): (Vec<_>, Vec<_>) = answers.iter().partition(|answer| answer.code == 200);
        // Two seats, and six queues of fifty.
        assert_eq!((served.len(), refused.len()), (302, 698));
        for answer in refused {
            assert_eq!((answer.code, answer.header("retry-after")), (429, "1"));
            assert_eq!(answer.header("content-type"), "text/plain; charset=utf-8");
            assert_eq!(answer.body, "Too many requests, please try again later.\n");
            assert!(!answer.header("x-kubernetes-pf-flowschema-uid").is_empty());
        }
        assert_eq!(api.get(&flooder, NAMESPACE).await.code, 200);
    });
}

#[test]
fn requests_that_were_dropped_leave_their_place() {
    run(async |api| {
        let flooder = user("flooder");
        let flood = future::join_all((0..1000).map(|_| api.get(&flooder, NAMESPACE)));
        assert!(api.env.timeout(Duration::from_millis(5), flood).await.is_err());
        let before = api.env.monotonic();
        assert_eq!(api.get(&flooder, NAMESPACE).await.code, 200);
        assert!(api.env.monotonic() - before < Duration::from_millis(100), "it waited for those who are gone");
    });
}

#[test]
fn answers_name_what_decided_about_them() {
    run(async |api| {
        let admin = UserInfo::admin();
        let node = UserInfo::new("system:node:n", &["system:nodes", "system:authenticated"]);
        let account = user("system:serviceaccount:kube-system:controller");
        let expected = [
            (&admin, NAMESPACE, "exempt", "exempt"),
            (&user("somebody"), NAMESPACE, "global-default", "global-default"),
            (&user("somebody"), "/livez", "probes", "exempt"),
            (&node, "/api/v1/nodes", "system-node-high", "node-high"),
            (&node, "/api/v1/pods", "system-nodes", "system"),
            (&account, "/api/v1/namespaces/a/pods", "kube-system-service-accounts", "workload-high"),
            (
                &account,
                "/apis/coordination.k8s.io/v1/namespaces/a/leases",
                "kube-system-service-accounts",
                "workload-high",
            ),
            (
                &account,
                "/apis/coordination.k8s.io/v1/namespaces/a/leases/l",
                "system-leader-election",
                "leader-election",
            ),
            (&UserInfo::new("nobody", &[]), NAMESPACE, "catch-all", "catch-all"),
        ];
        for (user, path, schema, level) in expected {
            let answer = api.get(user, path).await;
            for (header, place, name) in [("flowschema", SCHEMAS, schema), ("prioritylevel", LEVELS, level)] {
                let object = api.get(&admin, &format!("{place}/{name}")).await.json();
                let uid = answer.header(&format!("x-kubernetes-pf-{header}-uid"));
                assert_eq!(object["metadata"]["uid"], uid, "{path} of {}", user.name);
            }
        }
    });
}

#[test]
fn default_objects_are_kept() {
    run(async |api| {
        let admin = UserInfo::admin();
        api.settle().await;
        let before = api.store.status().await.unwrap().revision;
        api.settle().await;
        assert_eq!(api.store.status().await.unwrap().revision, before, "a restless keeper");

        let (all, default) = (format!("{SCHEMAS}/catch-all"), format!("{SCHEMAS}/global-default"));
        assert_eq!(api.send(&admin, "DELETE", &all, Value::Null).await.code, 200);
        let other = json!({"spec": {"matchingPrecedence": 77}});
        assert_eq!(api.send(&admin, "PATCH", &default, other.clone()).await.code, 200);
        api.settle().await;
        assert_eq!(api.get(&admin, &all).await.json()["spec"]["matchingPrecedence"], 10_000);
        assert_eq!(api.get(&admin, &default).await.json()["spec"]["matchingPrecedence"], 9900);

        let own =
            json!({"metadata": {"annotations": {"apf.kubernetes.io/autoupdate-spec": "false"}}, "spec": other["spec"]});
        assert_eq!(api.send(&admin, "PATCH", &default, own).await.code, 200);
        api.settle().await;
        assert_eq!(api.get(&admin, &default).await.json()["spec"]["matchingPrecedence"], 77);
    });
}

#[test]
fn new_objects_decide_at_once() {
    run(async |api| {
        let (admin, somebody) = (UserInfo::admin(), user("somebody"));
        let level = json!({"metadata": {"name": "closed"}, "spec": {
            "type": "Limited", "limited": {"nominalConcurrencyShares": 0, "limitResponse": {"type": "Reject"}}}});
        assert_eq!(api.send(&admin, "POST", LEVELS, level).await.code, 201);
        let schema = json!({"metadata": {"name": "somebody"}, "spec": {
            "priorityLevelConfiguration": {"name": "closed"},
            "rules": [{
                "subjects": [{"kind": "User", "user": {"name": "somebody"}}],
                "resourceRules": [{"verbs": ["get"], "apiGroups": [""], "resources": ["pods"], "namespaces": ["a"]}],
            }],
        }});
        assert_eq!(api.send(&admin, "POST", SCHEMAS, schema).await.code, 201);
        api.settle().await;
        assert_eq!(api.get(&somebody, "/api/v1/namespaces/a/pods/p").await.code, 429);
        // Others, other places and long requests are none of its business.
        for path in ["a/pods", "b/pods/p", "a/pods/p/log", "a/services/p"] {
            assert_ne!(api.get(&somebody, &format!("/api/v1/namespaces/{path}")).await.code, 429, "{path}");
        }
        assert_eq!(api.send(&admin, "DELETE", &format!("{SCHEMAS}/somebody"), Value::Null).await.code, 200);
        api.settle().await;
        assert_eq!(api.get(&somebody, "/api/v1/namespaces/a/pods/p").await.code, 404);
    });
}

/// How many requests of one user are answered in the seconds from here to there, if more are sent than there are seats.
async fn answered(api: &Api, user: &UserInfo, seconds: std::ops::Range<u64>) -> usize {
    let (start, end) = (Duration::from_secs(seconds.start), Duration::from_secs(seconds.end));
    let begin = api.env.monotonic();
    let worker = async || {
        let mut answered = 0;
        while api.env.monotonic() - begin < end {
            let code = api.get(user, NAMESPACE).await.code;
            answered += usize::from(code == 200 && api.env.monotonic() - begin >= start);
        }
        answered
    };
    future::join_all((0..30).map(|_| worker())).await.into_iter().sum()
}

#[test]
fn a_level_under_load_borrows_seats_that_others_do_not_need() {
    run(async |api| {
        let (admin, somebody) = (UserInfo::admin(), user("somebody"));
        // Two seats, of which each serves fifty requests a second.
        let first = answered(api, &somebody, 0..5).await;
        assert!((450..=560).contains(&first), "{first}");
        let later = answered(api, &somebody, 10..15).await;
        assert!(later > 2 * first, "{first} at first, {later} later");
        // Who may not borrow has what is his own again.
        let limit = json!({
            "metadata": {"annotations": {"apf.kubernetes.io/autoupdate-spec": "false"}},
            "spec": {"limited": {"borrowingLimitPercent": 0}},
        });
        assert_eq!(api.send(&admin, "PATCH", &format!("{LEVELS}/global-default"), limit).await.code, 200);
        api.settle().await;
        let alone = answered(api, &somebody, 10..15).await;
        assert!((450..=560).contains(&alone), "{alone}");
    });
}

#[test]
fn schemas_say_whether_their_level_is_there() {
    run(async |api| {
        let admin = UserInfo::admin();
        let schema = json!({"metadata": {"name": "s"}, "spec": {
            "priorityLevelConfiguration": {"name": "later"},
            "rules": [{
                "subjects": [{"kind": "User", "user": {"name": "u"}}],
                "nonResourceRules": [{"verbs": ["get"], "nonResourceURLs": ["/x"]}],
            }],
        }});
        assert_eq!(api.send(&admin, "POST", SCHEMAS, schema).await.code, 201);
        let dangling = async |name: &str| {
            api.settle().await;
            let schema = api.get(&admin, &format!("{SCHEMAS}/{name}")).await.json();
            let condition = &schema["status"]["conditions"][0];
            (condition["type"] == "Dangling").then(|| condition["status"].as_str().unwrap().to_owned())
        };
        assert_eq!(dangling("s").await.as_deref(), Some("True"));
        assert_eq!(dangling("global-default").await.as_deref(), Some("False"));
        let level = json!({"metadata": {"name": "later"}, "spec": {
            "type": "Limited", "limited": {"nominalConcurrencyShares": 1, "limitResponse": {"type": "Reject"}}}});
        assert_eq!(api.send(&admin, "POST", LEVELS, level).await.code, 201);
        assert_eq!(dangling("s").await.as_deref(), Some("False"));
    });
}
