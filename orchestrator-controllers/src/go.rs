//! Values as Go shows them, where upstream's messages contain them.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

/// A selector as Go shows it.
pub(crate) fn label_selector(selector: Option<&LabelSelector>) -> String {
    let Some(selector) = selector else { return "nil".to_owned() };
    let labels = selector.match_labels.iter().flatten().map(|(key, value)| format!("{key}: {value},"));
    let expressions = selector.match_expressions.iter().flatten().map(|known| {
        let values = known.values.clone().unwrap_or_default().join(" ");
        format!("LabelSelectorRequirement{{Key:{},Operator:{},Values:[{values}],}},", known.key, known.operator)
    });
    let (labels, expressions): (String, String) = (labels.collect(), expressions.collect());
    format!(
        "&LabelSelector{{MatchLabels:map[string]string{{{labels}}},\
         MatchExpressions:[]LabelSelectorRequirement{{{expressions}}},}}"
    )
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelectorRequirement;

    use super::*;

    #[test]
    fn selectors_are_shown_with_all_their_parts() {
        assert_eq!(label_selector(None), "nil");
        let expression = LabelSelectorRequirement {
            key: "tier".to_owned(),
            operator: "In".to_owned(),
            values: Some(vec!["a".to_owned(), "b".to_owned()]),
        };
        let selector = LabelSelector {
            match_labels: Some([("app".to_owned(), "web".to_owned())].into()),
            match_expressions: Some(vec![expression]),
        };
        let shown = "&LabelSelector{MatchLabels:map[string]string{app: web,},\
                     MatchExpressions:[]LabelSelectorRequirement{LabelSelectorRequirement{Key:tier,Operator:In,Values:[a b],},},}";
        assert_eq!(label_selector(Some(&selector)), shown);
    }
}
