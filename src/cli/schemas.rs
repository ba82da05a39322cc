//! The file of SCIM schemas and resource types (`--scim-schemas`).

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::scim::{ResourceTypes, SchemaProblem};

/// Largest file, in bytes.
const MAX_FILE: u64 = 1024 * 1024;

/// Why a file of schemas cannot be used: the file, the place in it, and how to mend it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SchemaFileError {
    /// The file cannot be read.
    #[error("--scim-schemas: {path}: {problem}")]
    Unreadable {
        /// The file.
        path: String,
        /// The error of the system, or of the parser.
        problem: String,
    },
    /// What the file describes cannot be served.
    #[error("--scim-schemas: {path}: {problem}")]
    Wrong {
        /// The file.
        path: String,
        /// The mistake.
        problem: SchemaProblem,
    },
}

/// Reads the resource types; those that are built in where there is no file.
///
/// # Errors
/// [`SchemaFileError`]
pub(crate) fn load(path: Option<&PathBuf>) -> Result<ResourceTypes, SchemaFileError> {
    let Some(path) = path else { return Ok(ResourceTypes::default()) };
    let documents =
        documents(path).map_err(|problem| SchemaFileError::Unreadable { path: path.display().to_string(), problem })?;
    ResourceTypes::registered(&documents)
        .map_err(|problem| SchemaFileError::Wrong { path: path.display().to_string(), problem })
}

/// The documents of a file in YAML or JSON. A list, and a list response as `/Schemas` answers it, stand for their items.
fn documents(path: &Path) -> Result<Vec<Value>, String> {
    let size = std::fs::metadata(path).map_err(|error| error.to_string())?.len();
    if size > MAX_FILE {
        return Err(format!("the file has {size} bytes; at most {MAX_FILE} are read"));
    }
    let text = std::fs::read_to_string(path).map_err(|error| error.to_string())?;
    let read: Vec<Value> = if text.trim_start().starts_with(['{', '[']) {
        vec![serde_json::from_str(&text).map_err(|error| format!("is no JSON: {error}"))?]
    } else {
        serde_saphyr::from_multiple(&text).map_err(|error| format!("is no YAML: {error}"))?
    };
    Ok(read
        .into_iter()
        .flat_map(|document| match document {
            Value::Array(list) => list,
            Value::Object(mut object) => match object.get_mut("Resources").map(Value::take) {
                Some(Value::Array(list)) => list,
                _ => vec![Value::Object(object)],
            },
            Value::Null => vec![],
            other => vec![other],
        })
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCHEMA: &str = r#"{"schemas": ["urn:ietf:params:scim:schemas:core:2.0:Schema"], "id": "urn:example:Device",
        "attributes": [{"name": "serial"}]}"#;
    const TYPE: &str = r#"{"schemas": ["urn:ietf:params:scim:schemas:core:2.0:ResourceType"], "name": "Device",
        "endpoint": "/Devices", "schema": "urn:example:Device"}"#;

    fn loaded(text: &str) -> Result<Vec<&'static str>, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("schemas");
        std::fs::write(&path, text).unwrap();
        let types =
            load(Some(&path)).map_err(|error| error.to_string().replace(&path.display().to_string(), "FILE"))?;
        Ok(types.all().into_iter().map(crate::scim::ResourceType::name).collect())
    }

    #[test]
    fn a_file_of_schemas_is_yaml_json_a_list_or_an_answer_of_a_server() {
        let expected = Ok(vec!["User", "Group", "Device"]);
        assert_eq!(loaded(&format!("---\n{SCHEMA}\n---\n{TYPE}\n")), expected);
        assert_eq!(loaded(&format!("[{SCHEMA}, {TYPE}]")), expected);
        assert_eq!(loaded(&format!("{{\"totalResults\": 2, \"Resources\": [{SCHEMA}, {TYPE}]}}")), expected);
        assert_eq!(loaded(&format!("# devices\n- {SCHEMA}\n- {TYPE}\n")), expected);
        assert_eq!(loaded(""), Ok(vec!["User", "Group"]));
        assert_eq!(load(None).map(|types| types.all().len()), Ok(2));
    }

    #[test]
    fn what_is_wrong_with_a_file_of_schemas_names_the_flag_and_the_file() {
        for (text, expected) in [
            (SCHEMA.to_owned(), "--scim-schemas: FILE: document 1 (`urn:example:Device`): no resource type uses"),
            ("{".to_owned(), "--scim-schemas: FILE: is no JSON: "),
            ("a: [".to_owned(), "--scim-schemas: FILE: is no YAML: "),
            ("x".repeat(2 * 1024 * 1024), "--scim-schemas: FILE: the file has 2097152 bytes; at most 1048576 are read"),
        ] {
            let problem = loaded(&text).unwrap_err();
            assert!(problem.starts_with(expected), "{problem}");
        }
        let missing = load(Some(&PathBuf::from("/no/such/file"))).map(drop).unwrap_err().to_string();
        assert!(missing.starts_with("--scim-schemas: /no/such/file: No such file"), "{missing}");
    }
}
