//! Parts of the schema that several fields share: bounds, and CEL rules whose messages say how to fix the value.

use schemars::{Schema, SchemaGenerator, json_schema};
use serde_json::{Value, json};

/// DNS label: token and namespace names.
const LABEL: &str = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$";
/// DNS subdomain: names of objects.
const SUBDOMAIN: &str = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*$";
/// A DNS domain in lower case with at least two labels.
const DOMAIN: &str = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)+$";
/// `services/NAME`, `jobs/NAME`, `workerPools/NAME`, globs in NAME only.
const RESOURCE: &str = "^(services|jobs|workerPools)/[a-z0-9*-]+$";
/// Predefined and custom roles, as accepted by [`crate::model::Role`].
const ROLE: &str = "^(roles|projects/[^/]+/roles|organizations/[0-9]+/roles)/[A-Za-z0-9_.]+$";
/// A project id, also one of a domain (`example.com:shop`). A number passes here, because another rule has a better
/// message for it.
const PROJECT: &str = "^([0-9]+|([a-z0-9.-]+:)?[a-z][a-z0-9-]*[a-z0-9])$";
/// A region.
const LOCATION: &str = "^[a-z]+-[a-z]+[0-9]+$";
/// An https URL with host, port and path only.
const ISSUER: &str = "^https://[A-Za-z0-9.-]+(:[0-9]{1,5})?(/[A-Za-z0-9._~!$&()*+,;=:@%/-]*)?$";
/// A subject of an issuer.
const SUBJECT: &str = "^[!-~]+$";
/// A member of a policy, with `*` for any characters.
const MEMBER: &str = "^[!-~]+$";
/// Hours, minutes and seconds, as accepted by [`super::duration`].
const DURATION: &str = "^([0-9]{1,5}(h|m|s)){1,3}$";

fn matches(pattern: &str, message: &str) -> Value {
    json!({ "rule": format!("self.matches('{pattern}')"), "message": message })
}

fn text(max: u32, rules: &[Value]) -> Schema {
    json_schema!({ "type": "string", "minLength": 1, "maxLength": max, "x-kubernetes-validations": rules })
}

fn set(max: u32, items: &Schema) -> Schema {
    json_schema!({
        "type": "array",
        "minItems": 1,
        "maxItems": max,
        "x-kubernetes-list-type": "set",
        "items": items
    })
}

/// The name of an `IdentityProvider` or a `CloudRunTarget`.
pub(super) fn object_name(_: &mut SchemaGenerator) -> Schema {
    text(63, &[matches(SUBDOMAIN, "a name has lower-case letters, digits, '-' and '.' only, and at most 63 of them")])
}

/// The name of a Secret.
pub(super) fn secret_name(_: &mut SchemaGenerator) -> Schema {
    text(253, &[matches(SUBDOMAIN, "a Secret's name has lower-case letters, digits, '-' and '.' only")])
}

/// An OpenID Connect issuer.
pub(super) fn issuer(_: &mut SchemaGenerator) -> Schema {
    text(
        512,
        &[matches(
            ISSUER,
            "an issuer is an https URL without query and fragment, such as https://idp.example.com/tenant",
        )],
    )
}

/// Subjects of an OpenID Connect issuer.
pub(super) fn subjects(_: &mut SchemaGenerator) -> Schema {
    set(16, &text(128, &[matches(SUBJECT, "a subject has no spaces and printable ASCII characters only")]))
}

/// The name of a token or of an OAuth 2.0 client.
pub(super) fn label_name(_: &mut SchemaGenerator) -> Schema {
    text(63, &[matches(LABEL, "a token's name, and a client's, has lower-case letters, digits and '-' only")])
}

/// Names of `IdentityProvider`s.
pub(super) fn provider_names(generator: &mut SchemaGenerator) -> Schema {
    set(16, &object_name(generator))
}

/// Names of namespaces.
pub(super) fn namespace_names(_: &mut SchemaGenerator) -> Schema {
    set(256, &text(63, &[matches(LABEL, "a namespace has lower-case letters, digits and '-' only; globs are refused")]))
}

/// Labels that must all be present.
pub(super) fn labels(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "minProperties": 1,
        "maxProperties": 16,
        "additionalProperties": { "type": "string", "maxLength": 63 }
    })
}

/// Domains of e-mail addresses.
pub(super) fn domains(_: &mut SchemaGenerator) -> Schema {
    set(
        32,
        &text(
            253,
            &[matches(DOMAIN, "write a domain in lower case, such as example.com, without '@', scheme or wildcard")],
        ),
    )
}

/// Patterns of resources.
pub(super) fn resources(_: &mut SchemaGenerator) -> Schema {
    set(
        64,
        &text(
            80,
            &[matches(
                RESOURCE,
                "write services/NAME, jobs/NAME or workerPools/NAME; '*' may stand in NAME only, which is lower case",
            )],
        ),
    )
}

/// Roles that may be granted.
pub(super) fn roles(_: &mut SchemaGenerator) -> Schema {
    set(
        32,
        &text(
            200,
            &[
                matches(
                    ROLE,
                    "write roles/NAME, projects/ID/roles/NAME or organizations/NUMBER/roles/NAME; globs are refused",
                ),
                json!({
                    "rule": "!(self in ['roles/owner', 'roles/editor', 'roles/viewer'])",
                    "message": "basic roles are refused; name a predefined or custom role such as roles/run.invoker"
                }),
            ],
        ),
    )
}

/// The title of a condition.
pub(super) fn condition_title(_: &mut SchemaGenerator) -> Schema {
    text(
        100,
        &[json!({
            "rule": "self.matches('^[^[:cntrl:]]*[^[:space:][:cntrl:]][^[:cntrl:]]*$')",
            "message": "a condition needs a title of visible characters, such as office-hours"
        })],
    )
}

/// A project id.
pub(super) fn project(_: &mut SchemaGenerator) -> Schema {
    text(
        100,
        &[
            json!({
                "rule": "!self.matches('^[0-9]+$')",
                "message": "this is a project number; write the project id, such as shop-prod"
            }),
            matches(
                PROJECT,
                "a project id starts with a letter and has lower-case letters, digits and '-' only, such as shop-prod",
            ),
        ],
    )
}

/// Regions.
pub(super) fn locations(_: &mut SchemaGenerator) -> Schema {
    set(
        64,
        &text(63, &[matches(LOCATION, "write each region by its name, such as europe-west1; wildcards are refused")]),
    )
}

/// Members of policies, with globs.
pub(super) fn members(_: &mut SchemaGenerator) -> Schema {
    set(
        64,
        &text(
            200,
            &[matches(MEMBER, "write a member as in the policy, such as serviceAccount:* or allUsers, without spaces")],
        ),
    )
}

/// A duration.
pub(super) fn duration(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "string",
        "minLength": 2,
        "maxLength": 18,
        "pattern": DURATION,
        "x-kubernetes-validations": [{
            "rule": "duration(self) >= duration('1s') && duration(self) <= duration('8760h')",
            "message": "the duration must lie between 1s and 8760h"
        }]
    })
}

/// Conditions, with the bounds that the API conventions recommend.
pub(super) fn conditions(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "maxItems": 16,
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["type"],
        "items": {
            "type": "object",
            "description": "One aspect of the state of this object.",
            "required": ["type", "status", "lastTransitionTime", "reason", "message"],
            "properties": {
                "type": {
                    "type": "string",
                    "description": "Which aspect.",
                    "maxLength": 316,
                    "pattern": "^([A-Za-z0-9][-A-Za-z0-9_.]*/)?[A-Za-z0-9][-A-Za-z0-9_.]*$"
                },
                "status": {
                    "type": "string",
                    "description": "True, False or Unknown.",
                    "enum": ["True", "False", "Unknown"]
                },
                "observedGeneration": {
                    "type": "integer",
                    "format": "int64",
                    "description": "The generation that the condition describes.",
                    "minimum": 0
                },
                "lastTransitionTime": {
                    "type": "string",
                    "format": "date-time",
                    "description": "When status last changed."
                },
                "reason": {
                    "type": "string",
                    "description": "Why, as one word that the runbook explains.",
                    "minLength": 1,
                    "maxLength": 1024,
                    "pattern": "^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$"
                },
                "message": {
                    "type": "string",
                    "description": "Cause, effect and next step in a sentence.",
                    "maxLength": 32768
                }
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use regex::Regex;

    use super::*;
    use crate::api::duration;
    use crate::api::glob::ResourcePattern;
    use crate::model::{ProviderName, Role};

    fn takes(pattern: &str, text: &str) -> bool {
        Regex::new(pattern).unwrap().is_match(text)
    }

    proptest! {
        #[test]
        fn the_schema_takes_the_roles_that_the_model_takes(
            text in "(roles|projects|organizations|x)?/?[a-z0-9 ]{0,3}/?(roles)?/?[a-zA-Z0-9_.*-]{0,6}"
        ) {
            let basic = ["roles/owner", "roles/editor", "roles/viewer"].contains(&text.as_str());
            prop_assert_eq!(takes(ROLE, &text) && !basic, Role::new(&text).is_ok(), "{}", text);
        }

        #[test]
        fn the_schema_takes_the_patterns_that_are_parsed(text in "(services|jobs|workerPools|x)?/?[a-zA-Z0-9*/?-]{0,8}") {
            prop_assert_eq!(takes(RESOURCE, &text), ResourcePattern::parse(&text).is_ok(), "{}", text);
        }

        #[test]
        fn the_schema_takes_the_durations_that_are_parsed(text in "([0-9]{0,6}[hmsd]?){0,4}") {
            prop_assert_eq!(takes(DURATION, &text), duration::parse(&text).is_ok(), "{}", text);
        }

        #[test]
        fn the_schema_takes_the_names_that_the_model_takes(text in "[a-z0-9.A-]{0,20}") {
            prop_assert_eq!(takes(SUBDOMAIN, &text), ProviderName::new(&text).is_ok(), "{}", text);
        }
    }
}
