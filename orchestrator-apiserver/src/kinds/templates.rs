//! PodTemplates.

use super::{podspec, rules::Rules, warnings};
use crate::{field::member, strategy::Generation};

/// Templates of pods as objects.
pub(super) const POD_TEMPLATES: Rules = Rules {
    generation: Generation::Intent,
    returns_deleted: true,
    default: |object| podspec::default_template(member(object, "template")),
    validate: |object, errors| podspec::validate_template(&object.get("template"), errors),
    warn: warnings::of_pod_template,
    ..Rules::NONE
};
