//! PodTemplates.

use super::{podspec, rules::Rules};
use crate::field::member;

/// Templates of pods as objects.
pub(super) const POD_TEMPLATES: Rules = Rules {
    generation: true,
    returns_deleted: true,
    default: |object| podspec::default_template(member(object, "template")),
    validate: |object, errors| podspec::validate_template(&object.get("template"), errors),
    ..Rules::NONE
};
