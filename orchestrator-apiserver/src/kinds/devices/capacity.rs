//! How much of a device's capacity one request may have: some amounts, or a range of them.

use orchestrator_core::quantity::Quantity;

use super::each_once;
use crate::{
    field::{Errors, Field},
    kinds::check,
};

const AMOUNTS_MAX: usize = 10;

/// The rules of a capacity; only one that many requests share says how it is shared.
pub(super) fn validate(capacity: &Field<'_>, is_shared: bool, errors: &mut Errors) {
    let policy = capacity.get("requestPolicy");
    if !policy.exists() {
        return;
    }
    if !is_shared {
        return policy.forbidden(errors, "allowMultipleAllocations must be true");
    }
    let (amounts, range) = (policy.get("validValues"), policy.get("validRange"));
    let whole = check::quantity(&capacity.get("value")).unwrap_or_default();
    let default = check::quantity(&policy.get("default"));
    match (amounts.len() > 0, range.exists(), default) {
        (true, true, _) => {
            let detail = "exactly one policy can be specified, cannot specify \"validValues\" and \"validRange\" at \
                          the same time";
            policy.forbidden(errors, detail);
        }
        (true, false, None) => policy.get("default").required(errors, "required when validValues is defined"),
        (false, true, None) => policy.get("default").required(errors, "required when validRange is defined"),
        (true, false, Some(default)) => among(&amounts, &default, &whole, errors),
        (false, true, Some(default)) => within(&range, &default, &whole, errors),
        (false, false, _) => {}
    }
}

/// The default is one of the amounts, none of which is more than there is.
fn among(amounts: &Field<'_>, default: &Quantity, whole: &Quantity, errors: &mut Errors) {
    let amount = |field: &Field<'_>| check::quantity(field).unwrap_or_default();
    let items = amounts.items();
    for pair in items.windows(2) {
        if let [before, after] = pair
            && amount(before) > amount(after)
        {
            wrong(after, &amount(after), "values must be sorted in ascending order", errors);
        }
    }
    let key = |field: &Field<'_>| amount(field).value().to_string();
    let is_checked = each_once(amounts, AMOUNTS_MAX, key, errors, |field, errors| {
        if amount(field) > *whole {
            let detail = format!("option is larger than capacity value: {whole}");
            wrong(field, &amount(field), &detail, errors);
        }
    });
    if !is_checked || !items.iter().any(|field| amount(field) == *default) {
        wrong(amounts, default, "default value is not valid according to the requestPolicy", errors);
    }
}

/// The default lies in the range, on one of its steps, and the range in what there is.
fn within(range: &Field<'_>, default: &Quantity, whole: &Quantity, errors: &mut Errors) {
    let [min_field, max_field, step_field] = ["min", "max", "step"].map(|name| range.get(name));
    let Some(min) = check::quantity(&min_field) else {
        return min_field.required(errors, "required when validRange is defined");
    };
    if min > *whole {
        wrong(&min_field, &min, &format!("min is larger than capacity value: {whole}"), errors);
    }
    if *default < min {
        wrong(&min_field, default, &format!("default is less than min: {min}"), errors);
    }
    let max = check::quantity(&max_field);
    if let Some(max) = &max {
        if min > *max {
            wrong(&max_field, &min, &format!("min is larger than max: {max}"), errors);
        }
        if max > whole {
            wrong(&max_field, max, &format!("max is larger than capacity value: {whole}"), errors);
        }
        if default > max {
            wrong(&max_field, default, &format!("default is more than max: {max}"), errors);
        }
    }
    let Some(step) = check::quantity(&step_field) else { return };
    let first = min.clone() + step.clone();
    if first > *whole {
        let detail = format!("one step {first} is larger than capacity value: {whole}");
        wrong(&step_field, &step, &detail, errors);
    }
    for value in [Some(default), max.as_ref()].into_iter().flatten() {
        let steps = value.value().saturating_sub(min.value());
        if steps.checked_rem(step.value()).is_some_and(|rest| rest != 0) {
            let detail = format!("value is not a multiple of a given step ({step}) from ({min})");
            wrong(&step_field, value, &detail, errors);
        }
    }
}

fn wrong(place: &Field<'_>, amount: &Quantity, detail: &str, errors: &mut Errors) {
    place.wrong(errors, format!("{:?}", amount.to_string()), detail);
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::kinds::testing::told;

    fn broken(policy: Value, is_shared: bool) -> Vec<String> {
        let (capacity, mut errors) = (json!({"value": "10Gi", "requestPolicy": policy}), Errors::default());
        validate(&Field::root(&capacity), is_shared, &mut errors);
        told(errors)
    }

    #[test]
    fn only_shared_capacity_says_how() {
        assert_eq!(broken(json!({}), false), ["requestPolicy: allowMultipleAllocations must be true"]);
        assert_eq!(broken(json!({}), true), [""; 0]);
    }

    #[test]
    fn the_default_is_one_of_the_amounts() {
        assert_eq!(broken(json!({"default": "1Gi", "validValues": ["1Gi", "2Gi"]}), true), [""; 0]);
        assert_eq!(
            broken(json!({"validValues": ["1Gi"]}), true),
            ["requestPolicy.default: required when validValues is defined"]
        );
        assert_eq!(
            broken(json!({"default": "3Gi", "validValues": ["2Gi", "1Gi", "11Gi", "11Gi"]}), true),
            [
                "requestPolicy.validValues[1]: \"1Gi\": values must be sorted in ascending order",
                "requestPolicy.validValues[2]: \"11Gi\": option is larger than capacity value: 10Gi",
                "requestPolicy.validValues[3]: \"11Gi\": option is larger than capacity value: 10Gi",
                "requestPolicy.validValues[3]: \"11811160064\"",
                "requestPolicy.validValues: \"3Gi\": default value is not valid according to the requestPolicy",
            ]
        );
    }

    #[test]
    fn the_default_lies_in_the_range() {
        let range = |range: Value| broken(json!({"default": "2Gi", "validRange": range}), true);
        assert_eq!(range(json!({"min": "1Gi", "max": "4Gi", "step": "1Gi"})), [""; 0]);
        assert_eq!(range(json!({})), ["requestPolicy.validRange.min: required when validRange is defined"]);
        assert_eq!(
            range(json!({"min": "3Gi", "max": "11Gi", "step": "8Gi"})),
            [
                "requestPolicy.validRange.min: \"2Gi\": default is less than min: 3Gi",
                "requestPolicy.validRange.max: \"11Gi\": max is larger than capacity value: 10Gi",
                "requestPolicy.validRange.step: \"8Gi\": one step 11Gi is larger than capacity value: 10Gi",
                "requestPolicy.validRange.step: \"2Gi\": value is not a multiple of a given step (8Gi) from (3Gi)",
            ]
        );
    }
}
