//! Parses manifests into objects, using the schema that the CRDs print: structure, defaults, CEL rules.

mod check;
mod lint;
mod object;
mod secret;
mod yaml;

#[cfg(test)]
mod tests;

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use self::check::Finding;
use self::yaml::{Content, Document, Node, Place};
use super::{CloudRunTarget, IdentityProvider, RoleMapping};
use crate::model::{Kind, MappingKey};

pub(crate) use lint::{LintFinding, LintReport, Severity, lint};
pub(crate) use secret::SecretData;

/// Largest file, in bytes.
pub(crate) const MAX_FILE_BYTES: usize = 1 << 20;
/// Deepest nesting of lists and maps.
pub(crate) const MAX_DEPTH: usize = 64;
/// Largest number of values in one file, counting what aliases expand to.
pub(crate) const MAX_NODES: usize = 100_000;
/// Largest number of problems reported for one document.
const MAX_PROBLEMS: usize = 50;

/// A problem with its position and a way to fix it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Problem {
    /// The file name as passed by the caller.
    pub(crate) file: String,
    /// The line, from 1.
    pub(crate) line: Option<u32>,
    /// The column in characters, from 1.
    pub(crate) column: Option<u32>,
    /// The field, such as `spec.grants[0].roles[1]`; empty for the whole document.
    pub(crate) field: String,
    /// The stable word.
    pub(crate) reason: &'static str,
    /// The problem and how to fix it. Never contains a value of a Secret.
    pub(crate) message: String,
}

impl Problem {
    /// Creates a problem of a whole file.
    #[must_use]
    pub(crate) fn of_file(file: &str, reason: &'static str, message: String) -> Self {
        Self { file: file.to_owned(), line: None, column: None, field: String::new(), reason, message }
    }

    fn at(file: &str, place: Place, field: String, reason: &'static str, message: String) -> Self {
        let (line, column) = (Some(place.line), Some(place.column));
        Self { file: file.to_owned(), line, column, field, reason, message }
    }
}

impl fmt::Display for Problem {
    /// `FILE:LINE:COLUMN: FIELD: MESSAGE (REASON)`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        if let Some(column) = self.column.filter(|_| self.line.is_some()) {
            write!(f, ":{column}")?;
        }
        f.write_str(": ")?;
        if !self.field.is_empty() {
            write!(f, "{}: ", self.field)?;
        }
        write!(f, "{} ({})", self.message, self.reason)
    }
}

/// Identity of an object.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct ObjectRef {
    /// The kind.
    pub(crate) kind: Kind,
    /// The namespace of a `RoleMapping` or a `Secret`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) namespace: Option<String>,
    /// The name.
    pub(crate) name: String,
}

impl ObjectRef {
    /// The identity of an object.
    #[must_use]
    pub(crate) fn new(kind: Kind, namespace: Option<&str>, name: &str) -> Self {
        Self { kind, namespace: namespace.map(str::to_owned), name: name.to_owned() }
    }

    /// The identity of a mapping.
    #[must_use]
    pub(crate) fn of_mapping(key: &MappingKey) -> Self {
        Self::new(Kind::RoleMapping, Some(key.namespace()), key.name())
    }
}

impl fmt::Display for ObjectRef {
    /// `RoleMapping checkout/team`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.namespace {
            Some(namespace) => write!(f, "{} {namespace}/{}", self.kind, self.name),
            None => write!(f, "{} {}", self.kind, self.name),
        }
    }
}

/// An object of a manifest, with defaults.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Object {
    /// An identity provider, which is one SCIM tenant.
    IdentityProvider(Box<IdentityProvider>),
    /// A target of grants.
    CloudRunTarget(Box<CloudRunTarget>),
    /// A role mapping.
    RoleMapping(Box<RoleMapping>),
    /// A Secret with tokens.
    Secret(SecretData),
}

impl Object {
    /// The identity of the object.
    #[must_use]
    pub(crate) fn object_ref(&self) -> ObjectRef {
        let (kind, metadata) = match self {
            Self::IdentityProvider(object) => (Kind::IdentityProvider, &object.metadata),
            Self::CloudRunTarget(object) => (Kind::CloudRunTarget, &object.metadata),
            Self::RoleMapping(object) => (Kind::RoleMapping, &object.metadata),
            Self::Secret(secret) => {
                return ObjectRef::new(Kind::Secret, secret.namespace.as_deref(), &secret.name);
            }
        };
        ObjectRef::new(kind, metadata.namespace.as_deref(), metadata.name.as_deref().unwrap_or_default())
    }

    /// SHA-256 over the content of the object: metadata, spec or data. Equal when nothing but the notation changed.
    #[must_use]
    pub(crate) fn hash(&self) -> [u8; 32] {
        let said = match self {
            Self::IdentityProvider(object) => serde_json::to_vec(object),
            Self::CloudRunTarget(object) => serde_json::to_vec(object),
            Self::RoleMapping(object) => serde_json::to_vec(object),
            Self::Secret(secret) => serde_json::to_vec(&(&secret.namespace, &secret.name, &secret.data)),
        };
        // Serialization cannot fail: values of these types are maps with text keys.
        Sha256::digest(said.unwrap_or_default()).into()
    }
}

/// One document of a file that concerns rolecall, or that cannot be parsed.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ParsedDocument {
    /// Index of the document in the file, from 0; skipped and empty ones are not counted.
    pub(crate) index: usize,
    /// The identity of the object, if it can be read and its kind is known.
    pub(crate) identity: Option<ObjectRef>,
    /// The line where it begins.
    pub(crate) line: Option<u32>,
    /// The object, or all of its problems. Never an empty list.
    pub(crate) result: Result<Object, Vec<Problem>>,
}

/// Parses a file of YAML documents, or of one JSON document (a name that ends in `.json`).
///
/// Documents of other groups and kinds are skipped silently, so that a folder may contain the other manifests of an
/// application. `v1` Lists are split into their items.
#[must_use]
pub(crate) fn parse_file(file: &str, text: &str) -> Vec<ParsedDocument> {
    if text.len() > MAX_FILE_BYTES {
        let message = format!("the file has {} bytes; at most {MAX_FILE_BYTES} are read", text.len());
        return vec![unreadable(0, Problem::of_file(file, "FileTooLarge", message))];
    }
    let is_json = std::path::Path::new(file).extension().is_some_and(|end| end.eq_ignore_ascii_case("json"));
    let (documents, error) = if is_json { yaml::json_documents(text) } else { yaml::documents(text) };
    let mut parsed = Vec::new();
    for Document { node, problems } in &documents {
        let items = match node.get("items").map(|items| &items.content) {
            Some(Content::List(items)) if is(node, "apiVersion", "v1") && is(node, "kind", "List") => items.as_slice(),
            _ => std::slice::from_ref(node),
        };
        for item in items {
            let Some((identity, result)) = object::read(item, problems) else { continue };
            let place =
                |finding: Finding| Problem::at(file, finding.place, finding.path, finding.reason, finding.message);
            let result = result.map_err(|found| found.into_iter().take(MAX_PROBLEMS).map(place).collect());
            parsed.push(ParsedDocument { index: parsed.len(), identity, line: Some(item.place.line), result });
        }
    }
    if let Some(error) = error {
        let problem = Problem::at(file, error.place, String::new(), error.reason, error.message);
        parsed.push(unreadable(parsed.len(), problem));
    }
    parsed
}

/// Reads one object that was not a text, such as one from an API server. `name`: its name in problems.
///
/// # Errors
/// All of its problems; never an empty list.
pub(crate) fn read_object(name: &str, value: &Value) -> Result<Object, Vec<Problem>> {
    let problem = |field, reason, message| Problem { field, ..Problem::of_file(name, reason, message) };
    let node = Node::of_value(value).map_err(|error| vec![problem(String::new(), error.reason, error.message)])?;
    match object::read(&node, &[]) {
        Some((_, Ok(object))) => Ok(object),
        Some((_, Err(found))) => {
            let problems = found.into_iter().take(MAX_PROBLEMS);
            Err(problems.map(|found| problem(found.path, found.reason, found.message)).collect())
        }
        None => Err(vec![problem(String::new(), "NotAManifest", "is no object of rolecall".to_owned())]),
    }
}

fn unreadable(index: usize, problem: Problem) -> ParsedDocument {
    ParsedDocument { index, identity: None, line: problem.line, result: Err(vec![problem]) }
}

fn is(node: &Node, field: &str, value: &str) -> bool {
    node.get(field).and_then(Node::as_str) == Some(value)
}
