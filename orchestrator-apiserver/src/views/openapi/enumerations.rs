//! Fields whose texts are enumerated: what they can be, as schemas and descriptions tell it.
//!
//! Upstream: types that are marked with `+enum`, and the feature `OpenAPIEnums`.

use std::{collections::BTreeMap, sync::LazyLock};

use serde_json::{Map, Value};

use crate::decode::Shape;

const ENUMERATIONS: &str = include_str!("../../../data/enumerations.tsv");

static BY_FIELD: LazyLock<BTreeMap<(&'static str, &'static str), Vec<&'static str>>> = LazyLock::new(|| {
    let rows = ENUMERATIONS.lines().filter(|line| !line.starts_with('#'));
    rows.filter_map(|line| {
        let mut columns = line.splitn(3, '\t');
        Some(((columns.next()?, columns.next()?), columns.next()?.split(',').collect()))
    })
    .collect()
});

/// What a field can be, or each of its items, in order.
pub(super) fn values<'a>(definition: &'a str, field: &'a str) -> &'a [&'static str] {
    BY_FIELD.get(&(definition, field)).map(Vec::as_slice).unwrap_or_default()
}

/// Writes into the schema of a field what it can be.
pub(super) fn add(schema: &mut Map<String, Value>, shape: Shape, values: &[&str]) {
    let of = match shape {
        Shape::One => Some(schema),
        Shape::List => schema.get_mut("items").and_then(Value::as_object_mut),
        Shape::Map => None,
    };
    if let Some(of) = of.filter(|_| !values.is_empty()) {
        of.insert("enum".to_owned(), values.into());
    }
}

/// The description of a field that is one of these.
pub(super) fn described(text: Option<String>, values: &[&str]) -> Option<String> {
    if values.is_empty() {
        return text;
    }
    let text = text.map(|text| text + "\n\n").unwrap_or_default();
    let values: Vec<String> = values.iter().map(|value| format!(" - `{value:?}`")).collect();
    Some(format!("{text}Possible enum values:\n{}", values.join("\n")))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{
        decode::Schema,
        field::{Errors, Field},
        registry::Registry,
        views::openapi::schemas::message_of,
    };

    #[test]
    fn all_of_them_are_texts_of_the_schema() {
        for (definition, field) in BY_FIELD.keys() {
            let message = message_of(definition).and_then(|index| Schema::get().message(index));
            let found = &message.unwrap_or_else(|| panic!("{definition}")).fields[field];
            assert_eq!(found.of, crate::decode::Type::String, "{definition} {field}");
            assert_ne!(found.shape, Shape::Map);
        }
    }

    #[test]
    fn descriptions_name_them() {
        let text = described(Some("How.".to_owned()), &["A", "B c"]).unwrap();
        assert_eq!(text, "How.\n\nPossible enum values:\n - `\"A\"`\n - `\"B c\"`");
        assert_eq!(described(None, &[]), None);
    }

    /// Resource, where a value stands, the field.
    const CHECKED: [(&str, &str, &str, &str, &str); 11] = [
        ("", "services", "/spec/type", "core.v1.ServiceSpec", "type"),
        ("", "services", "/spec/sessionAffinity", "core.v1.ServiceSpec", "sessionAffinity"),
        ("", "services", "/spec/internalTrafficPolicy", "core.v1.ServiceSpec", "internalTrafficPolicy"),
        ("", "pods", "/spec/restartPolicy", "core.v1.PodSpec", "restartPolicy"),
        ("", "pods", "/spec/dnsPolicy", "core.v1.PodSpec", "dnsPolicy"),
        ("", "pods", "/spec/containers/0/imagePullPolicy", "core.v1.Container", "imagePullPolicy"),
        ("", "pods", "/spec/containers/0/ports/0/protocol", "core.v1.ContainerPort", "protocol"),
        ("batch", "cronjobs", "/spec/concurrencyPolicy", "batch.v1.CronJobSpec", "concurrencyPolicy"),
        ("batch", "jobs", "/spec/completionMode", "batch.v1.JobSpec", "completionMode"),
        ("storage.k8s.io", "storageclasses", "/volumeBindingMode", "storage.v1.StorageClass", "volumeBindingMode"),
        ("discovery.k8s.io", "endpointslices", "/addressType", "discovery.v1.EndpointSlice", "addressType"),
    ];

    #[test]
    fn what_is_none_of_them_is_refused_with_the_same_values() {
        let registry = Registry::new();
        for (group, plural, pointer, definition, field) in CHECKED {
            let kinds = registry.kinds();
            let kind = kinds.iter().find(|kind| kind.is(group, plural)).unwrap();
            let mut object = json!({"spec": {
                "containers": [{"name": "c", "image": "i", "ports": [{"containerPort": 1, "protocol": "TCP"}]}],
            }});
            let (parent, name) = pointer.rsplit_once('/').unwrap();
            object.pointer_mut(parent).unwrap()[name] = "odd".into();
            let mut errors = Errors::default();
            kind.strategy.validate(&Field::root(&object), &mut errors);
            kind.strategy.validate_create(&Field::root(&object), &mut errors);
            let details: Vec<String> = errors.into_vec().into_iter().map(|error| error.detail).collect();
            let found = details.iter().find_map(|detail| detail.strip_prefix("\"odd\": supported values: "));
            let mut supported: Vec<&str> =
                found.unwrap_or_else(|| panic!("{plural} {pointer}: {details:#?}")).split(", ").collect();
            supported.sort_unstable();
            let definition = format!("io.k8s.api.{definition}");
            let listed: Vec<String> = values(&definition, field).iter().map(|value| format!("{value:?}")).collect();
            assert_eq!(supported, listed, "{plural} {pointer}");
        }
    }
}
