//! Data for pods: ConfigMap, Secret, ServiceAccount.

use base64::{Engine, prelude::BASE64_STANDARD};
use orchestrator_core::status::FieldErrorKind;
use serde_json::Value;

use super::{check, rules::Rules};
use crate::{
    decode,
    field::{Errors, Field, member, remove, set_default},
};

/// Size of all data of one object, in bytes; upstream's limit.
const DATA_BYTES: usize = 1 << 20;
const SET: &str = "field is immutable when `immutable` is set";

/// Config maps.
pub(super) const CONFIG_MAPS: Rules =
    Rules { validate_create: validate_config_map, validate_update: config_map_stays, ..Rules::NONE };

/// Secrets.
pub(super) const SECRETS: Rules =
    Rules { default: default_secret, validate_create: validate_secret, validate_update: secret_stays, ..Rules::NONE };

/// Service accounts.
pub(super) const SERVICE_ACCOUNTS: Rules = Rules { returns_deleted: true, ..Rules::NONE };

fn validate_config_map(map: &Field<'_>, errors: &mut Errors) {
    let (data, binary) = (map.get("data"), map.get("binaryData"));
    let mut size = 0;
    for (key, value) in data.entries() {
        keys(&value, key, errors);
        if binary.key(key).exists() {
            value.wrong(errors, format!("{key:?}"), "duplicate of key present in binaryData");
        }
        size += value.text().len();
    }
    for (key, value) in binary.entries() {
        keys(&value, key, errors);
        size += decoded(value.text());
    }
    if size > DATA_BYTES {
        errors.add(check::WHOLE, FieldErrorKind::TooLong, format!("may not be more than {DATA_BYTES} bytes"));
    }
}

fn keys(value: &Field<'_>, key: &str, errors: &mut Errors) {
    for problem in check::config_key(key) {
        value.wrong(errors, format!("{key:?}"), &problem);
    }
}

/// Length of what Base64 stands for.
fn decoded(text: &str) -> usize {
    BASE64_STANDARD.decode(text).map_or(0, |bytes| bytes.len())
}

/// Once an object is immutable it stays so, and its data too.
fn immutable_stays(new: &Field<'_>, old: &Field<'_>, data: &[&str], errors: &mut Errors) {
    if old.get("immutable").bool() != Some(true) {
        return;
    }
    if new.get("immutable").bool() != Some(true) {
        new.get("immutable").forbidden(errors, SET);
    }
    for name in data {
        if new.get(name).value() != old.get(name).value() {
            new.get(name).forbidden(errors, SET);
        }
    }
}

fn config_map_stays(new: &Field<'_>, old: &Field<'_>, errors: &mut Errors) {
    immutable_stays(new, old, &["data", "binaryData"], errors);
    validate_config_map(new, errors);
}

fn default_secret(secret: &mut Value) {
    set_default(secret, "type", "Opaque");
    if secret["type"] == "" {
        *member(secret, "type") = "Opaque".into();
    }
    // Texts are a way of writing only: they become data.
    if let Some(Value::Object(texts)) = remove(secret, "stringData") {
        let data = member(secret, "data");
        for (key, text) in texts {
            *member(data, &key) = BASE64_STANDARD.encode(text.as_str().unwrap_or_default()).into();
        }
    }
}

fn validate_secret(secret: &Field<'_>, errors: &mut Errors) {
    let data = secret.get("data");
    let mut size = 0;
    for (key, value) in data.entries() {
        keys(&value, key, errors);
        size += decoded(value.text());
    }
    if size > DATA_BYTES {
        data.error(errors, FieldErrorKind::TooLong, format!("may not be more than {DATA_BYTES} bytes"));
    }
    let need = |key: &str, errors: &mut Errors| {
        if !data.key(key).exists() {
            data.key(key).required(errors, "");
        }
    };
    match secret.get("type").text() {
        "kubernetes.io/service-account-token" => {
            let name = secret.at("metadata.annotations").key("kubernetes.io/service-account.name");
            if name.text().is_empty() {
                name.required(errors, "");
            }
        }
        "kubernetes.io/dockercfg" => json_in(&data.key(".dockercfg"), errors),
        "kubernetes.io/dockerconfigjson" => json_in(&data.key(".dockerconfigjson"), errors),
        "kubernetes.io/basic-auth" => {
            let given = data.key("username").exists() || data.key("password").exists();
            if !given {
                need("username", errors);
                need("password", errors);
            }
        }
        "kubernetes.io/ssh-auth" => {
            let key = data.key("ssh-privatekey");
            if key.text().is_empty() {
                key.required(errors, "");
            }
        }
        "kubernetes.io/tls" => {
            need("tls.crt", errors);
            need("tls.key", errors);
        }
        _ => {}
    }
}

fn json_in(value: &Field<'_>, errors: &mut Errors) {
    if !value.exists() {
        return value.required(errors, "");
    }
    let bytes = BASE64_STANDARD.decode(value.text()).unwrap_or_default();
    let why = match serde_json::from_slice::<Value>(&bytes) {
        Ok(Value::Object(_) | Value::Null) => return,
        Ok(other) => {
            let kind = decode::go_kind(&other);
            format!("json: cannot unmarshal {kind} into Go value of type map[string]interface {{}}")
        }
        Err(error) => decode::complaint(&bytes).unwrap_or_else(|| error.to_string()),
    };
    value.wrong(errors, "\"<secret contents redacted>\"", &why);
}

fn secret_stays(new: &Field<'_>, old: &Field<'_>, errors: &mut Errors) {
    check::immutable(new, old, "type", errors);
    immutable_stays(new, old, &["data"], errors);
    validate_secret(new, errors);
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::kinds::testing::broken_by_change;

    #[test]
    fn what_may_change_is_told_before_what_may_be() {
        let map = |data: Value| json!({"metadata": {"name": "m"}, "immutable": true, "data": data});
        let found = broken_by_change(&CONFIG_MAPS, map(json!({})), map(json!({"a b": ""})));
        assert_eq!(found[0], format!("data: {SET}"));
        assert!(found.len() == 2 && found[1].starts_with("data[a b]: "), "{found:?}");
        let secret = |of: &str| json!({"metadata": {"name": "s"}, "type": of});
        assert_eq!(
            broken_by_change(&SECRETS, secret("Opaque"), secret("kubernetes.io/ssh-auth")),
            ["type: \"kubernetes.io/ssh-auth\": field is immutable", "data[ssh-privatekey]: "]
        );
    }
}
