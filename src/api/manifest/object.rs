//! Converts one document into one object: determines its kind and validates it.

use std::collections::BTreeMap;

use kube::core::cel::Validator;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::check::{Check, Finding, RuleError, join, shown};
use super::yaml::{Content, Node, Place, Unreadable};
use super::{Object, ObjectRef, secret};
use crate::api::{GROUP, VERSION, crds, initial_status};
use crate::model::{Kind, ProviderName};

/// The schema of one kind in its CRD.
struct KindSchema {
    namespaced: bool,
    check: Check,
}

/// The compiled schemas of all CRDs.
struct Schemas {
    kinds: BTreeMap<Kind, KindSchema>,
    validator: Validator,
}

thread_local! {
    // The validator cannot be shared between threads; compiling takes a few milliseconds and happens once per thread.
    static SCHEMAS: Result<Schemas, String> = Schemas::compile().map_err(|error| error.to_string());
}

impl Schemas {
    fn compile() -> Result<Self, Box<dyn std::error::Error>> {
        let mut kinds = BTreeMap::new();
        for crd in crds()? {
            let crd = serde_json::to_value(crd)?;
            let text = |path| crd.pointer(path).and_then(Value::as_str).unwrap_or_default();
            let schema = crd.pointer("/spec/versions/0/schema/openAPIV3Schema").ok_or("a CRD without a schema")?;
            let mut check = Check::compile(schema)?;
            check.replace_field("apiVersion", Check::compile(&json!({"type": "string"}))?);
            check.replace_field("kind", Check::compile(&json!({"type": "string"}))?);
            check.replace_field("metadata", Check::compile(&metadata_schema())?);
            check.require("metadata");
            // Only rolecall writes the status, so a status copied from `kubectl get -o yaml` is harmless.
            check.replace_field("status", Check::anything());
            let namespaced = text("/spec/scope") == "Namespaced";
            let kind = Kind::from_word(text("/spec/names/kind")).ok_or("a CRD of an unknown kind")?;
            kinds.insert(kind, KindSchema { namespaced, check });
        }
        Ok(Self { kinds, validator: Validator::new() })
    }
}

/// The schema of `ObjectMeta` in the API server. Fields that the server fills in are accepted without validation.
pub(super) fn metadata_schema() -> Value {
    let texts = json!({"type": "object", "additionalProperties": {"type": "string"}});
    let text = json!({"type": "string", "minLength": 1, "maxLength": 253});
    let mut properties = json!({"name": text, "namespace": text, "labels": texts, "annotations": texts});
    for field in [
        "creationTimestamp",
        "deletionGracePeriodSeconds",
        "deletionTimestamp",
        "finalizers",
        "generation",
        "managedFields",
        "ownerReferences",
        "resourceVersion",
        "selfLink",
        "uid",
    ] {
        properties[field] = json!({});
    }
    json!({"type": "object", "required": ["name"], "properties": properties})
}

pub(super) type Outcome = (Option<ObjectRef>, Result<Object, Vec<Finding>>);

/// Reads one document; `problems` were found while its text was parsed. None: the document does not concern rolecall.
pub(super) fn read(node: &Node, problems: &[Unreadable]) -> Option<Outcome> {
    let mut found: Vec<_> =
        problems.iter().map(|problem| finding(problem.place, "", problem.reason, problem.message.clone())).collect();
    let text = |field: &str| node.get(field).and_then(Node::as_str);
    let (version, word) = match (&node.content, text("apiVersion"), text("kind")) {
        (Content::Map(_), Some(version), Some(word)) => (version, word),
        // Not a manifest at all, for example the values of a chart.
        (Content::Map(_), None, None) if node.get("spec").is_none() => return None,
        (Content::Map(_), ..) => {
            found.push(finding(node.place, "", "NotAManifest", "a manifest has apiVersion and kind".to_owned()));
            return Some((None, Err(found)));
        }
        _ => return None,
    };
    let metadata = |field: &str| node.get("metadata")?.get(field)?.as_str().map(str::to_owned);
    let kind = Kind::from_word(word);
    let identity =
        kind.zip(metadata("name")).map(|(kind, name)| ObjectRef { kind, namespace: metadata("namespace"), name });
    let (group, number) = version.split_once('/').unwrap_or(("", version));
    let result = match (group, kind) {
        ("", Some(Kind::Secret)) if number == "v1" => secret::read(node, found).map(Object::Secret),
        (GROUP, _) if number != VERSION => {
            let message = format!("`{}` is not served; write {GROUP}/{VERSION}", shown(version));
            found.push(finding(node.locate("apiVersion"), "apiVersion", "UnknownVersion", message));
            Err(found)
        }
        (GROUP, Some(kind @ Kind::IdentityProvider)) => custom(node, kind, found).map(Object::IdentityProvider),
        (GROUP, Some(kind @ Kind::CloudRunTarget)) => custom(node, kind, found).map(Object::CloudRunTarget),
        (GROUP, Some(kind @ Kind::RoleMapping)) => custom(node, kind, found).map(Object::RoleMapping),
        (GROUP, Some(Kind::Secret | Kind::Namespace) | None) => {
            let kinds = "IdentityProvider, CloudRunTarget and RoleMapping";
            let message = format!("`{}` is no kind of {GROUP}; there are {kinds}", shown(word));
            found.push(finding(node.locate("kind"), "kind", "UnknownKind", message));
            Err(found)
        }
        _ => return None,
    };
    Some((identity, result))
}

fn custom<T: DeserializeOwned>(node: &Node, kind: Kind, mut found: Vec<Finding>) -> Result<Box<T>, Vec<Finding>> {
    SCHEMAS.with(|schemas| {
        let schema = schemas.as_ref().map_err(Clone::clone).and_then(|schemas| {
            let schema = schemas.kinds.get(&kind).ok_or_else(|| format!("there is no CRD of {kind}"))?;
            Ok((schema, &schemas.validator))
        });
        let (schema, validator) = match schema {
            Ok(schema) => schema,
            Err(message) => {
                found.push(finding(node.place, "", "SchemaUnusable", message));
                return Err(found);
            }
        };
        schema.check.check(node, "", &mut found);
        names(node, kind, schema.namespaced, &mut found);
        let value = schema.check.value(node);
        rules(node, &value, &schema.check, validator, &mut found);
        if !found.is_empty() {
            found.sort_by_key(|finding| (finding.place.line, finding.place.column));
            return Err(found);
        }
        serde_json::from_value(without_what_the_server_writes(value)).map(Box::new).map_err(|error| {
            // The schema refuses everything that the type cannot hold, as a test verifies.
            vec![finding(node.place, "", "SchemaUnusable", format!("the object does not fit its type: {error}"))]
        })
    })
}

/// Checks names, because a CRD cannot define the schema of `metadata`.
pub(super) fn names(node: &Node, kind: Kind, namespaced: bool, found: &mut Vec<Finding>) {
    let Some(metadata) = node.get("metadata") else { return };
    for field in ["name", "namespace"] {
        let Some(text) = metadata.get(field).and_then(Node::as_str) else { continue };
        if let Err(error) = ProviderName::new(text) {
            let path = format!("metadata.{field}");
            found.push(finding(node.locate(&path), &path, "InvalidName", error.to_string()));
        }
    }
    match metadata.get("namespace") {
        None if namespaced => {
            let message = format!("required and missing: a {kind} belongs to a namespace");
            found.push(finding(metadata.place, "metadata.namespace", "MissingField", message));
        }
        Some(namespace) if !namespaced => {
            let message = format!("a {kind} belongs to no namespace; remove the field");
            found.push(finding(namespace.place, "metadata.namespace", "UnknownField", message));
        }
        _ => {}
    }
}

/// Evaluates the CEL rules. If the structure is already invalid, only problems of other fields are added; the API
/// server would report the rest on the next attempt.
fn rules(node: &Node, value: &Value, check: &Check, validator: &Validator, found: &mut Vec<Finding>) {
    let mut errors = Vec::new();
    check.rules(value, "", validator, &mut errors);
    let structure: Vec<String> = found.iter().map(|finding| finding.path.clone()).collect();
    for RuleError { path, message, evaluated } in errors {
        let related = structure.iter().any(|other| within(other, &path) || within(&path, other));
        if related || !(evaluated || structure.is_empty()) {
            continue;
        }
        let shown = match value_at(value, &path) {
            Some(Value::String(text)) => format!(" (found `{}`)", shown(text)),
            _ => String::new(),
        };
        found.push(finding(node.locate(&path), &path, "RuleViolated", format!("{message}{shown}")));
    }
}

/// True when `inner` is the same path as `outer`, or below it.
fn within(inner: &str, outer: &str) -> bool {
    let rest = inner.strip_prefix(outer).filter(|_| !outer.is_empty());
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
}

fn value_at<'a>(value: &'a Value, path: &str) -> Option<&'a Value> {
    path.split(['.', '[']).try_fold(value, |value, part| match part.strip_suffix(']') {
        Some(index) => value.get(index.parse::<usize>().ok()?),
        None => value.get(part),
    })
}

/// Removes what the API server writes: uid, times and owners. The status becomes that of a new object, as the API
/// server sets it.
fn without_what_the_server_writes(mut value: Value) -> Value {
    if let Some(object) = value.as_object_mut() {
        object.insert("status".to_owned(), initial_status());
        if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata.retain(|field, _| matches!(field.as_str(), "name" | "namespace" | "labels" | "annotations"));
        }
    }
    value
}

pub(super) fn finding(place: Place, path: &str, reason: &'static str, message: String) -> Finding {
    Finding { place, path: path.to_owned(), reason, message }
}

/// Reports unknown fields of a map that is not a custom resource's.
pub(super) fn only_fields(node: &Node, known: &[&str], found: &mut Vec<Finding>) {
    let Content::Map(entries) = &node.content else { return };
    for (key, _) in entries.iter().filter(|(key, _)| !known.contains(&key.text.as_str())) {
        let message = format!("unknown field; the fields here are {}", known.join(", "));
        found.push(finding(key.place, &join("", &key.text), "UnknownField", message));
    }
}

#[cfg(test)]
mod tests {
    use kube::core::cel::ValidationErrors;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(crate::model::cases::cases(40))]

        #[test]
        fn the_rules_agree_with_the_validator_on_the_whole_object(
            roles in prop::collection::vec(prop::sample::select(vec!["roles/run.invoker", "roles/owner", "*", ""]), 0..3),
            resources in prop::collection::vec(prop::sample::select(vec!["services/a", "a", "services/*"]), 0..3),
            external in any::<bool>(),
            name in prop::sample::select(vec!["m".to_owned(), "m".repeat(64)]),
        ) {
            let group = if external { json!({"externalId": "x", "displayName": "y"}) } else { json!({"displayName": "y"}) };
            let object = json!({
                "apiVersion": "rolecall.dev/v1alpha1",
                "kind": "RoleMapping",
                "metadata": {"name": name, "namespace": "n"},
                "spec": {
                    "subjects": [{"identityProvider": "Okta", "groups": [group]}],
                    "grants": [{"target": {"name": "t"}, "roles": roles, "resources": resources}]
                }
            });
            let crd = crds().unwrap().into_iter().find(|crd| crd.spec.names.kind == Kind::RoleMapping.as_str()).unwrap();
            let crd = serde_json::to_value(crd).unwrap();
            let schema = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
            let whole = Validator::new().validate(schema, &object, None).err().map(ValidationErrors::into_vec);
            let mut whole: Vec<_> =
                whole.into_iter().flatten().map(|error| (error.field_path, error.message)).collect();
            let mut parts = Vec::new();
            Check::compile(schema).unwrap().rules(&object, "", &Validator::new(), &mut parts);
            let mut parts: Vec<_> = parts.into_iter().map(|error| (error.path, error.message)).collect();
            whole.sort();
            parts.sort();
            prop_assert_eq!(whole, parts);
        }
    }
}
