//! The files of a projected volume: pure, from the objects that they come from.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{ConfigMap, Container, DownwardAPIVolumeFile, KeyToPath, Secret};

use super::{File, Payload};
use crate::container::fields::{self, Facts};

/// The files of a ConfigMap.
pub(crate) fn config_map(
    map: &ConfigMap,
    items: Option<&[KeyToPath]>,
    mode: i32,
    optional: bool,
) -> Result<Payload, String> {
    let text = map.data.iter().flatten().map(|(key, value)| (key.clone(), value.clone().into_bytes()));
    let binary = map.binary_data.iter().flatten().map(|(key, value)| (key.clone(), value.0.clone()));
    select(text.chain(binary).collect(), items, mode, optional, "config")
}

/// The files of a Secret.
pub(crate) fn secret(
    secret: &Secret,
    items: Option<&[KeyToPath]>,
    mode: i32,
    optional: bool,
) -> Result<Payload, String> {
    let data = secret.data.iter().flatten().map(|(key, value)| (key.clone(), value.0.clone())).collect();
    select(data, items, mode, optional, "secret")
}

fn select(
    data: BTreeMap<String, Vec<u8>>,
    items: Option<&[KeyToPath]>,
    mode: i32,
    optional: bool,
    what: &str,
) -> Result<Payload, String> {
    let Some(items) = items.filter(|items| !items.is_empty()) else {
        return Ok(data.into_iter().map(|(key, content)| (key, File { content, mode: bits(mode) })).collect());
    };
    let mut files = Payload::new();
    for item in items {
        match data.get(&item.key) {
            Some(content) => {
                let mode = bits(item.mode.unwrap_or(mode));
                files.insert(item.path.clone(), File { content: content.clone(), mode });
            }
            None if optional => {}
            None => return Err(format!("references non-existent {what} key: {}", item.key)),
        }
    }
    Ok(files)
}

/// The files of a downward API volume.
pub(crate) fn downward(
    facts: &Facts<'_>,
    items: Option<&[DownwardAPIVolumeFile]>,
    mode: i32,
) -> Result<Payload, String> {
    let mut files = Payload::new();
    for item in items.unwrap_or_default() {
        let text = if let Some(field) = &item.field_ref {
            fields::field(facts, &field.field_path)?
        } else if let Some(selector) = &item.resource_field_ref {
            fields::resource(facts, &Container::default(), selector)?
        } else {
            String::new()
        };
        let mode = bits(item.mode.unwrap_or(mode));
        files.insert(item.path.clone(), File { content: text.into_bytes(), mode });
    }
    Ok(files)
}

/// A file with a token.
pub(crate) fn token(path: &str, token: String, mode: i32) -> Payload {
    Payload::from([(path.to_owned(), File { content: token.into_bytes(), mode: bits(mode) })])
}

fn bits(mode: i32) -> u32 {
    u32::try_from(mode).unwrap_or(0o644) & 0o777
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn keys_paths_and_modes() {
        let map: ConfigMap = serde_json::from_value(json!({"data": {"a": "1", "b": "2"}})).unwrap();
        assert_eq!(config_map(&map, None, 0o644, false).unwrap().len(), 2);
        let item = |key: &str, mode| KeyToPath { key: key.into(), path: format!("x/{key}"), mode };
        let files = config_map(&map, Some(&[item("a", Some(0o400))]), 0o644, false).unwrap();
        assert_eq!(files["x/a"], File { content: b"1".to_vec(), mode: 0o400 });
        let missing = [item("z", None)];
        assert_eq!(
            config_map(&map, Some(&missing), 0o644, false).unwrap_err(),
            "references non-existent config key: z"
        );
        assert_eq!(config_map(&map, Some(&missing), 0o644, true).unwrap(), Payload::new());
    }
}
