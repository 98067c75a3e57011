//! What patches say that objects have no place for, and what they say twice.

use serde_json::{Value, json};

use super::support::{Answer, Api, MERGE};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const JSON_PATCH: &str = "application/json-patch+json";
const STRATEGIC: &str = "application/strategic-merge-patch+json";

/// Media type, body, what is found.
const PATCHES: [(&str, &str, &[&str]); 7] = [
    (MERGE, r#"{"data":{"a":"1","a":"2"}}"#, &["duplicate field \"data.a\""]),
    (MERGE, r#"{"data":{"a":"1"},"extra":1}"#, &["unknown field \"extra\""]),
    (MERGE, r#"{"data":{"a":"1","a":"2"},"extra":1}"#, &["duplicate field \"data.a\"", "unknown field \"extra\""]),
    (STRATEGIC, r#"{"data":{"a":"1","a":"2"},"extra":1}"#, &["duplicate field \"data.a\"", "unknown field \"extra\""]),
    (JSON_PATCH, r#"[{"op":"add","path":"/extra","value":1}]"#, &["unknown field \"extra\""]),
    (
        JSON_PATCH,
        r#"[{"op":"add","path":"/data/a","value":"1","value":"2"}]"#,
        &["json patch duplicate field \"[0].value\""],
    ),
    (
        JSON_PATCH,
        r#"[{"op":"add","path":"/data/a","value":"2","why":1},{"op":"add","path":"/extra","value":1}]"#,
        &["json patch unknown field \"[0].why\"", "unknown field \"extra\""],
    ),
];

async fn patch(api: &Api, name: &str, validation: &str, media: &str, body: &str) -> Answer {
    api.send("PATCH", &format!("{MAPS}/{name}?fieldValidation={validation}"), media, body.to_owned()).await
}

async fn start() -> Api {
    let api = Api::start().await;
    api.post(MAPS, &json!({"metadata": {"name": "m"}, "data": {"b": "1"}})).await.object();
    api
}

#[tokio::test]
async fn who_is_strict_refuses_what_patches_say_twice_or_in_vain() {
    let api = start().await;
    for (media, body, found) in PATCHES {
        let refused = patch(&api, "m", "Strict", media, body).await;
        let message = refused.message();
        assert_eq!((refused.code, &refused.body["reason"]), (422, &json!("Invalid")), "{body}: {message}");
        let words = format!(": strict decoding error: {}", found.join(", "));
        assert!(
            message.starts_with(" \"\" is invalid: patch: Invalid value: ") && message.ends_with(&words),
            "{message}"
        );
        // Who is shown the object is shown it with what is wrong.
        assert_eq!(message.contains("extra\\\":1") || message.contains("extra:1"), body.contains("extra"), "{message}");
    }
    assert_eq!(api.get(&format!("{MAPS}/m")).await.object()["data"], json!({"b": "1"}));
}

#[tokio::test]
async fn others_are_warned_or_not() {
    let api = start().await;
    for (media, body, found) in PATCHES {
        let warned = patch(&api, "m", "Warn", media, body).await;
        let expected: Vec<String> = found.iter().map(|found| format!("299 - {}", Value::from(*found))).collect();
        assert_eq!((warned.code, &warned.warnings), (200, &expected), "{body}: {}", warned.body);
        assert_eq!(warned.object().get("extra"), None);
        let ignored = patch(&api, "m", "Ignore", media, body).await;
        assert_eq!((ignored.code, ignored.warnings.len()), (200, 0), "{body}: {}", ignored.body);
    }
}

#[tokio::test]
async fn an_object_that_is_missing_is_missed_before_its_patch_is_read() {
    let api = start().await;
    let missing = "configmaps \"nobody\" not found";
    for body in ["[{\"op\": 1}]", "{}", "[{\"op\":\"add\",\"path\":\"/data\",\"value\":{},\"value\":{}}]"] {
        patch(&api, "nobody", "Strict", JSON_PATCH, body).await.assert_refused(404, missing);
    }
    let problem =
        "error decoding patch: json: cannot unmarshal number into Go struct field jsonPatchOp.op of type string";
    patch(&api, "m", "Strict", JSON_PATCH, "[{\"op\": 1}]").await.assert_refused(400, problem);
}

#[tokio::test]
async fn scales_are_patched_as_strictly() {
    let api = start().await;
    let template = json!({"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let spec = json!({"selector": {"matchLabels": {"a": "b"}}, "template": template});
    let deployments = "/apis/apps/v1/namespaces/default/deployments";
    api.post(deployments, &json!({"metadata": {"name": "d"}, "spec": spec})).await.object();
    let body = r#"{"spec":{"replicas":2,"replicas":3,"size":1}}"#;
    let found = "duplicate field \"spec.replicas\", unknown field \"spec.size\"";
    let path = |validation: &str| format!("{deployments}/d/scale?fieldValidation={validation}");
    let refused = api.send("PATCH", &path("Strict"), MERGE, body).await;
    assert_eq!(refused.code, 422, "{}", refused.body);
    assert!(refused.message().ends_with(found), "{}", refused.message());
    let warned = api.send("PATCH", &path("Warn"), MERGE, body).await;
    assert_eq!((warned.code, warned.warnings.len()), (200, 2), "{}", warned.body);
    assert_eq!(warned.object()["spec"]["replicas"], 3);
}
