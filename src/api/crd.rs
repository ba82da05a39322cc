//! The CRDs: generated from the types, then adapted to the form that the API conventions ask for.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;
use serde_json::{Map, Value, json};

use super::{CloudRunTarget, IdentityProvider, RoleMapping, initial_status};

/// The API group of the resources.
pub(crate) const GROUP: &str = "rolecall.dev";
/// The version of the resources.
pub(crate) const VERSION: &str = "v1alpha1";

/// Why the CRDs cannot be printed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CrdError {
    /// A CRD does not have the expected form: a defect of this program.
    #[error("the CustomResourceDefinition cannot be built: {0}")]
    Malformed(#[from] serde_json::Error),
    /// A CRD cannot be written as YAML: a defect of this program.
    #[error("the CustomResourceDefinition cannot be printed: {0}")]
    Unprintable(#[from] serde_saphyr::ser::Error),
}

/// The CRDs of all kinds, in the order in which they are best installed.
///
/// # Errors
/// [`CrdError::Malformed`], which a test excludes.
pub(crate) fn crds() -> Result<Vec<CustomResourceDefinition>, CrdError> {
    [IdentityProvider::crd(), CloudRunTarget::crd(), RoleMapping::crd()].into_iter().map(finish).collect()
}

/// File name (`rolecall.dev_rolemappings.yaml`) and YAML text of each CRD.
///
/// # Errors
/// [`CrdError`], which a test excludes.
pub(crate) fn crds_yaml() -> Result<Vec<(String, String)>, CrdError> {
    crds()?
        .iter()
        .map(|crd| {
            let mut value = serde_json::to_value(crd)?;
            whole_numbers(&mut value);
            Ok((format!("{GROUP}_{}.yaml", crd.spec.names.plural), serde_saphyr::to_string(&value)?))
        })
        .collect()
}

fn finish(crd: CustomResourceDefinition) -> Result<CustomResourceDefinition, CrdError> {
    let mut value = serde_json::to_value(crd)?;
    if let Some(versions) = value.pointer_mut("/spec/versions").and_then(Value::as_array_mut) {
        for version in versions {
            if let Some(schema) = version.pointer_mut("/schema/openAPIV3Schema") {
                tidy(schema);
                root(schema);
                if let Some(status) = schema.pointer_mut("/properties/status") {
                    without_defaults(status);
                    status["default"] = initial_status();
                }
            }
        }
    }
    Ok(serde_json::from_value(value)?)
}

/// Limits the name, which is part of URLs and of keys in the store, to 63 characters, the length of a label.
fn root(schema: &mut Value) {
    schema["x-kubernetes-validations"] = json!([{
        "rule": "size(self.metadata.name) <= 63",
        "message": "metadata.name must have at most 63 characters"
    }]);
    if let Some(node) = schema.as_object_mut() {
        node.remove("title");
    }
    schema["properties"]["spec"]["description"] = json!("What is wanted.");
    schema["properties"]["status"]["description"] = json!("What rolecall found and did. Written by rolecall only.");
}

/// Removes `nullable`, because an absent field is the only way to express "none", and turns descriptions into one
/// paragraph of plain text.
fn tidy(schema: &mut Value) {
    let Some(node) = schema.as_object_mut() else { return };
    node.remove("nullable");
    if let Some(Value::String(description)) = node.get_mut("description") {
        *description = description.replace('`', "").split_whitespace().collect::<Vec<_>>().join(" ");
    }
    children_mut(node).for_each(tidy);
}

/// Removes the defaults of the status, so that the API server fills in nothing. The only exception is the initial
/// status of a new object.
fn without_defaults(schema: &mut Value) {
    let Some(node) = schema.as_object_mut() else { return };
    node.remove("default");
    children_mut(node).for_each(without_defaults);
}

fn children_mut(node: &mut Map<String, Value>) -> impl Iterator<Item = &mut Value> {
    node.iter_mut().flat_map(|(key, value)| -> Box<dyn Iterator<Item = &mut Value>> {
        match key.as_str() {
            "properties" => Box::new(value.as_object_mut().into_iter().flat_map(Map::values_mut)),
            "items" => Box::new(std::iter::once(value)),
            _ => Box::new(std::iter::empty()),
        }
    })
}

/// Writes bounds as integers. They are floating-point numbers in the type of a CRD, which would print `0.0`.
fn whole_numbers(value: &mut Value) {
    match value {
        Value::Object(fields) => fields.values_mut().for_each(whole_numbers),
        Value::Array(items) => items.iter_mut().for_each(whole_numbers),
        Value::Number(number) => {
            let whole = number.as_f64().filter(|float| number.is_f64() && float.fract() == 0.0);
            if let Some(text) = whole.map(|float| format!("{float:.0}"))
                && let Ok(integer) = text.parse::<i64>()
            {
                *value = integer.into();
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use kube::core::cel::{ScopeContext, analyze_rule, compile_schema};

    use super::*;
    use crate::model::Kind;

    fn visit(path: &str, schema: &Value, look: &mut impl FnMut(&str, &Value)) {
        look(path, schema);
        for (name, child) in schema["properties"].as_object().into_iter().flatten() {
            visit(&format!("{path}.{name}"), child, look);
        }
        if schema.get("items").is_some() {
            visit(&format!("{path}[]"), &schema["items"], look);
        }
    }

    fn visit_all(mut look: impl FnMut(&str, &Value)) {
        for crd in crds().unwrap() {
            let crd = serde_json::to_value(&crd).unwrap();
            let kind = crd["spec"]["names"]["kind"].as_str().unwrap();
            visit(kind, &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"], &mut look);
        }
    }

    #[test]
    fn every_field_is_described_and_bounded() {
        let mut fields = 0;
        visit_all(|path, schema| {
            fields += 1;
            let kind = schema["type"].as_str().unwrap_or_else(|| panic!("{path} has no type"));
            let has = |keyword: &str| schema.get(keyword).is_some();
            if !path.ends_with("[]") {
                let description = schema["description"].as_str().unwrap_or_else(|| panic!("{path} has no description"));
                assert!(description.ends_with('.') && !description.contains('`'), "{path}: {description}");
            }
            match kind {
                "string" => assert!(has("maxLength") || has("enum") || has("format"), "{path} has no maxLength"),
                "array" => {
                    assert!(has("maxItems") && has("x-kubernetes-list-type"), "{path} has no bound or list type");
                }
                "integer" => assert!(schema["format"] == "int64" && has("minimum"), "{path} has no bound"),
                "object" if has("additionalProperties") => assert!(has("maxProperties"), "{path} has no bound"),
                "object" => assert!(has("properties"), "{path} takes anything"),
                _ => panic!("{path} is a {kind}"),
            }
            assert!(!has("nullable") && !has("title") && !has("$ref") && !has("anyOf") && !has("oneOf"), "{path}");
        });
        assert!(fields > 100, "{fields}");
    }

    #[test]
    fn every_rule_has_a_message_and_compiles_without_a_warning() {
        let mut rules = 0;
        visit_all(|path, schema| {
            let compiled = compile_schema(schema);
            assert!(!compiled.has_errors(), "{path}: {:?}", compiled.compilation_errors());
            for rule in schema["x-kubernetes-validations"].as_array().into_iter().flatten() {
                rules += 1;
                let message = rule["message"].as_str().unwrap_or_else(|| panic!("{path} has a rule without a message"));
                assert!(!message.contains('\n') && !message.ends_with('.'), "{path}: {message}");
                let warnings = analyze_rule(rule["rule"].as_str().unwrap(), &compiled, ScopeContext::CrdValidation);
                assert_eq!(warnings.len(), 0, "{path}: {warnings:?}");
            }
        });
        assert!(rules > 10, "{rules}");
    }

    #[test]
    fn what_is_printed_is_what_is_meant() {
        for ((file, text), crd) in crds_yaml().unwrap().iter().zip(crds().unwrap()) {
            let read: CustomResourceDefinition = serde_saphyr::from_str(text).unwrap();
            assert_eq!(read, crd, "{file}");
        }
    }

    #[test]
    fn kinds_have_short_names_the_category_columns_and_a_status() {
        for crd in crds().unwrap() {
            let names = &crd.spec.names;
            assert_eq!(names.categories.as_deref(), Some(&["rolecall".to_owned()][..]));
            assert_eq!(names.short_names.as_ref().unwrap().len(), 1);
            let version = &crd.spec.versions[0];
            assert!(version.served && version.storage && version.name == VERSION);
            assert!(version.subresources.as_ref().unwrap().status.is_some());
            let columns: Vec<_> =
                version.additional_printer_columns.iter().flatten().map(|column| column.name.to_uppercase()).collect();
            if names.kind == Kind::RoleMapping.as_str() {
                assert_eq!(columns, ["MODE", "GRANTS", "HELD", "DRIFT", "LAG", "READY", "REASON", "AGE"]);
            }
            assert!(columns.ends_with(&["AGE".to_owned()]) || columns.contains(&"ENDPOINT".to_owned()));
        }
    }

    #[test]
    fn the_crds_in_the_repository_are_those_of_the_types() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("crds");
        let rewrite = std::env::vars().any(|(key, value)| key == "UPDATE_GOLDEN" && value == "1");
        for (file, text) in crds_yaml().unwrap() {
            let path = folder.join(&file);
            if rewrite {
                std::fs::create_dir_all(&folder).unwrap();
                std::fs::write(&path, &text).unwrap();
            }
            let stored = std::fs::read_to_string(&path).unwrap_or_default();
            assert!(stored == text, "crds/{file} is stale: run UPDATE_GOLDEN=1 cargo test --lib api::crd");
        }
        let files = std::fs::read_dir(&folder).unwrap().count();
        assert_eq!(files, crds().unwrap().len(), "crds/ has a file that no type stands for");
    }
}
