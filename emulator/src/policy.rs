//! Allow policies: parsing of set requests, storage, and rendering of reads.

use std::collections::HashMap;
use std::collections::HashSet;

use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use crate::error::ApiError;
use crate::etag;

/// One stored version of a policy.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Policy {
    /// Microseconds since the epoch; the source of the etag.
    pub(crate) etag: u64,
    pub(crate) bindings: Vec<Binding>,
    /// `auditConfigs` as written; projects only.
    pub(crate) audit_configs: Vec<Value>,
}

/// A role, its members, and its condition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Binding {
    pub(crate) role: String,
    pub(crate) members: Vec<String>,
    pub(crate) condition: Option<Condition>,
}

/// `google.type.Expr`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(crate) struct Condition {
    pub(crate) title: String,
    pub(crate) description: String,
    pub(crate) expression: String,
    pub(crate) location: String,
}

impl Condition {
    fn to_json(&self) -> Value {
        let mut object = Map::new();
        for (name, value) in [
            ("expression", &self.expression),
            ("title", &self.title),
            ("description", &self.description),
            ("location", &self.location),
        ] {
            if !value.is_empty() {
                object.insert(name.into(), json!(value));
            }
        }
        Value::Object(object)
    }

    /// The 20 hex digits that replace the condition where it cannot be shown.
    fn digits(&self) -> String {
        let mut hash = Sha256::new();
        for field in [&self.expression, &self.title, &self.description, &self.location] {
            hash.update((field.len() as u64).to_be_bytes());
            hash.update(field.as_bytes());
        }
        etag::hex(&hash.finalize()[..10])
    }

    /// Checks that the expression is CEL over the attributes of conditions.
    pub(crate) fn compile(&self) -> Result<(), String> {
        const ATTRIBUTES: [&str; 5] = ["request", "resource", "destination", "api", "principal"];
        let program = cel::Program::compile(&self.expression).map_err(|error| error.to_string())?;
        let references = program.references();
        match references.variables().into_iter().find(|name| !ATTRIBUTES.contains(name)) {
            Some(name) => Err(format!("undeclared reference to '{name}'")),
            None => Ok(()),
        }
    }

    /// Counts `&&`, `||` and `!` outside of string literals.
    pub(crate) fn logical_operators(&self) -> usize {
        let mut count = 0;
        let mut quote = None;
        let mut characters = self.expression.chars().peekable();
        while let Some(character) = characters.next() {
            match (quote, character) {
                (Some(_), '\\') => {
                    characters.next();
                }
                (Some(open), close) if open == close => quote = None,
                (None, '\'' | '"') => quote = Some(character),
                (None, '&' | '|') if characters.peek() == Some(&character) => {
                    characters.next();
                    count += 1;
                }
                (None, '!') if characters.peek() != Some(&'=') => count += 1,
                _ => {}
            }
        }
        count
    }
}

impl Policy {
    pub(crate) fn is_conditional(&self) -> bool {
        self.bindings.iter().any(|binding| binding.condition.is_some())
    }

    /// Approximate size of the policy in bytes, for the bounds of the journal and of a policy.
    pub(crate) fn weight(&self) -> usize {
        self.bindings.iter().map(Binding::weight).sum()
    }
}

impl Binding {
    fn weight(&self) -> usize {
        let condition = self
            .condition
            .as_ref()
            .map_or(0, |c| c.title.len() + c.description.len() + c.expression.len() + c.location.len());
        self.role.len() + condition + self.members.iter().map(String::len).sum::<usize>()
    }

    pub(crate) fn to_json(&self) -> Value {
        let mut object = Map::new();
        object.insert("role".into(), json!(self.role));
        object.insert("members".into(), json!(self.members));
        if let Some(condition) = &self.condition {
            object.insert("condition".into(), condition.to_json());
        }
        Value::Object(object)
    }
}

/// The answer to a read with `requested_version`. Below 3, conditions are dropped and their roles renamed.
pub(crate) fn render(policy: Option<&Policy>, requested_version: i64) -> Value {
    let Some(policy) = policy else { return json!({ "etag": etag::text(None) }) };
    let mut object = Map::new();
    let shows_conditions = policy.is_conditional() && requested_version >= 3;
    object.insert("version".into(), json!(if shows_conditions { 3 } else { 1 }));
    object.insert("etag".into(), json!(etag::text(Some(policy.etag))));
    if !policy.bindings.is_empty() {
        let bindings: Vec<Value> = policy
            .bindings
            .iter()
            .map(|binding| match &binding.condition {
                Some(condition) if !shows_conditions => json!({
                    "role": format!("{}_withcond_{}", binding.role, condition.digits()),
                    "members": binding.members,
                }),
                _ => binding.to_json(),
            })
            .collect();
        object.insert("bindings".into(), Value::Array(bindings));
    }
    if !policy.audit_configs.is_empty() {
        object.insert("auditConfigs".into(), json!(policy.audit_configs));
    }
    Value::Object(object)
}

/// A parsed `SetIamPolicyRequest`.
#[derive(Debug, Clone)]
pub(crate) struct SetRequest {
    pub(crate) version: i64,
    /// `None` when absent or empty: overwrite unconditionally.
    pub(crate) etag: Option<Vec<u8>>,
    pub(crate) bindings: Vec<Binding>,
    pub(crate) audit_configs: Vec<Value>,
    pub(crate) writes_bindings: bool,
    pub(crate) writes_audit_configs: bool,
}

fn unknown_name(name: &str, at: &str) -> ApiError {
    let place = if at.is_empty() { String::new() } else { format!(" at '{at}'") };
    let text = format!("Invalid JSON payload received. Unknown name \"{name}\"{place}: Cannot find field.");
    ApiError::invalid(text.clone()).with_details(json!([{
        "@type": "type.googleapis.com/google.rpc.BadRequest",
        "fieldViolations": [{ "field": at, "description": text }],
    }]))
}

fn invalid_value(at: &str, value: &Value) -> ApiError {
    ApiError::invalid(format!("Invalid value at '{at}', {value}"))
}

/// The object at `at`, whose keys must all be `known`. JSON null means an absent field.
fn object<'a>(value: &'a Value, at: &str, known: &[&str]) -> Result<&'a Map<String, Value>, ApiError> {
    let object = value.as_object().ok_or_else(|| invalid_value(at, value))?;
    match object.keys().find(|key| !known.contains(&key.as_str())) {
        Some(key) => Err(unknown_name(key, at)),
        None => Ok(object),
    }
}

fn field<'a>(object: &'a Map<String, Value>, names: &[&str]) -> Option<&'a Value> {
    names.iter().find_map(|name| object.get(*name)).filter(|value| !value.is_null())
}

fn string(object: &Map<String, Value>, name: &str, at: &str) -> Result<String, ApiError> {
    match field(object, &[name]) {
        None => Ok(String::new()),
        Some(Value::String(text)) => Ok(text.clone()),
        Some(other) => Err(invalid_value(&format!("{at}.{name}"), other)),
    }
}

fn array<'a>(object: &'a Map<String, Value>, names: &[&str], at: &str) -> Result<&'a [Value], ApiError> {
    match field(object, names) {
        None => Ok(&[]),
        Some(Value::Array(items)) => Ok(items),
        Some(other) => Err(invalid_value(&format!("{at}.{}", names[0]), other)),
    }
}

/// Parses a JSON body according to protobuf's JSON mapping.
pub(crate) fn parse_json(body: &[u8]) -> Result<Value, ApiError> {
    if body.is_empty() {
        return Ok(Value::Object(Map::new()));
    }
    serde_json::from_slice(body)
        .map_err(|problem| ApiError::invalid(format!("Invalid JSON payload received. Parsing terminated: {problem}.")))
}

/// Checks a body of which no field is known.
pub(crate) fn parse_empty(body: &[u8]) -> Result<(), ApiError> {
    object(&parse_json(body)?, "", &[]).map(|_| ())
}

/// Parses the body of a set call. IAP has no `updateMask`.
pub(crate) fn parse_set(body: &[u8], allows_mask: bool) -> Result<SetRequest, ApiError> {
    let value = parse_json(body)?;
    let known: &[&str] = if allows_mask { &["policy", "updateMask", "update_mask"] } else { &["policy"] };
    let request = object(&value, "", known)?;
    let Some(policy) = field(request, &["policy"]) else {
        return Err(ApiError::invalid("Invalid SetIamPolicyRequest: policy is required."));
    };
    let policy = object(policy, "policy", &["version", "etag", "bindings", "auditConfigs", "audit_configs"])?;

    let version = match field(policy, &["version"]) {
        None => 1,
        Some(Value::Number(number)) if number.is_i64() => number.as_i64().unwrap_or(1),
        Some(Value::String(text)) => text
            .parse()
            .map_err(|_| ApiError::invalid(format!("Invalid value at 'policy.version' (TYPE_INT32), \"{text}\"")))?,
        Some(other) => {
            return Err(ApiError::invalid(format!("Invalid value at 'policy.version' (TYPE_INT32), {other}")));
        }
    };
    check_version(version)?;

    let etag = match string(policy, "etag", "policy")? {
        text if text.is_empty() => None,
        text => Some(etag::decode(&text).ok_or_else(|| {
            ApiError::invalid(format!(
                "Invalid value at 'policy.etag' (TYPE_BYTES), Base64 decoding failed for \"{text}\""
            ))
        })?),
    };

    let bindings = array(policy, &["bindings"], "policy")?
        .iter()
        .enumerate()
        .map(|(index, binding)| parse_binding(binding, &format!("policy.bindings[{index}]")))
        .collect::<Result<Vec<_>, _>>()?;
    let audit_configs = array(policy, &["auditConfigs", "audit_configs"], "policy")?.to_vec();

    let mut request =
        SetRequest { version, etag, bindings, audit_configs, writes_bindings: true, writes_audit_configs: false };
    if let Some(mask) = field(request_mask(&value), &["updateMask", "update_mask"]) {
        let mask = mask.as_str().ok_or_else(|| invalid_value("update_mask", mask))?;
        let paths: Vec<&str> = mask.split(',').map(str::trim).filter(|path| !path.is_empty()).collect();
        if let Some(wrong) =
            paths.iter().find(|path| !["bindings", "etag", "version", "auditConfigs", "audit_configs"].contains(path))
        {
            return Err(ApiError::invalid(format!(
                "Invalid value at 'update_mask' (type.googleapis.com/google.protobuf.FieldMask), \"{wrong}\""
            )));
        }
        if !paths.is_empty() {
            request.writes_bindings = paths.contains(&"bindings");
            request.writes_audit_configs = paths.contains(&"auditConfigs") || paths.contains(&"audit_configs");
        }
    }
    Ok(request)
}

fn request_mask(value: &Value) -> &Map<String, Value> {
    static EMPTY: std::sync::LazyLock<Map<String, Value>> = std::sync::LazyLock::new(Map::new);
    value.as_object().unwrap_or(&EMPTY)
}

/// Checks the version: 0, 1 and 3 exist.
pub(crate) fn check_version(version: i64) -> Result<(), ApiError> {
    match version {
        0 | 1 | 3 => Ok(()),
        other => Err(ApiError::invalid(format!("Invalid policy version {other}. Valid values are 0, 1, and 3."))),
    }
}

/// Parses one binding; also used for raw edits.
pub(crate) fn parse_binding(value: &Value, at: &str) -> Result<Binding, ApiError> {
    let binding = object(value, at, &["role", "members", "condition"])?;
    let role = string(binding, "role", at)?;
    let members = array(binding, &["members"], at)?
        .iter()
        .enumerate()
        .map(|(index, member)| match member {
            Value::String(text) => Ok(text.clone()),
            other => Err(invalid_value(&format!("{at}.members[{index}]"), other)),
        })
        .collect::<Result<Vec<_>, _>>()?;
    let condition = match field(binding, &["condition"]) {
        None => None,
        Some(value) => {
            let at = format!("{at}.condition");
            let expr = object(value, &at, &["title", "description", "expression", "location"])?;
            let condition = Condition {
                title: string(expr, "title", &at)?,
                description: string(expr, "description", &at)?,
                expression: string(expr, "expression", &at)?,
                location: string(expr, "location", &at)?,
            };
            // An empty message is the same as an absent one.
            (condition != Condition::default()).then_some(condition)
        }
    };
    Ok(Binding { role, members, condition })
}

/// Merges bindings with equal role and condition. Members appear once, in the order of their first appearance.
pub(crate) fn merge(bindings: Vec<Binding>) -> Vec<Binding> {
    let mut places: HashMap<(String, Option<Condition>), usize> = HashMap::with_capacity(bindings.len());
    let mut merged: Vec<(Binding, HashSet<String>)> = Vec::with_capacity(bindings.len());
    for binding in bindings {
        let place = *places.entry((binding.role.clone(), binding.condition.clone())).or_insert_with(|| {
            merged.push((
                Binding { role: binding.role.clone(), members: Vec::new(), condition: binding.condition.clone() },
                HashSet::new(),
            ));
            merged.len() - 1
        });
        let (into, seen) = &mut merged[place];
        for member in binding.members {
            if seen.insert(member.clone()) {
                into.members.push(member);
            }
        }
    }
    merged.into_iter().map(|(binding, _)| binding).filter(|binding| !binding.members.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn binding(role: &str, members: &[&str], title: Option<&str>) -> Binding {
        Binding {
            role: role.into(),
            members: members.iter().map(|&m| m.to_owned()).collect(),
            condition: title.map(|title| Condition {
                title: title.into(),
                expression: "true".into(),
                ..Condition::default()
            }),
        }
    }

    #[test]
    fn bindings_of_one_role_and_condition_are_merged_in_first_seen_order() {
        let merged = merge(vec![
            binding("a", &["x", "y"], None),
            binding("b", &["z"], None),
            binding("a", &["y", "w"], None),
            binding("a", &["x"], Some("t")),
            binding("c", &[], None),
        ]);
        assert_eq!(
            merged,
            [binding("a", &["x", "y", "w"], None), binding("b", &["z"], None), binding("a", &["x"], Some("t"))]
        );
    }

    #[test]
    fn conditions_are_hidden_behind_a_renamed_role_below_version_3() {
        let policy =
            Policy { etag: 1, bindings: vec![binding("roles/r", &["allUsers"], Some("t"))], audit_configs: vec![] };
        assert_eq!(render(Some(&policy), 3)["version"], 3);
        let low = render(Some(&policy), 1);
        assert_eq!(low["version"], 1);
        assert!(low["bindings"][0].get("condition").is_none());
        let role = low["bindings"][0]["role"].as_str().unwrap();
        let digits = role.strip_prefix("roles/r_withcond_").unwrap();
        assert!(digits.len() == 20 && digits.bytes().all(|b| b.is_ascii_hexdigit()), "{digits}");
    }

    #[test]
    fn logical_operators_in_literals_do_not_count() {
        let condition =
            Condition { expression: "a && !b || c != 'x && y' && d == \"||\"".into(), ..Condition::default() };
        assert_eq!(condition.logical_operators(), 4);
    }

    #[test]
    fn a_field_of_another_name_is_refused() {
        let error = parse_set(br#"{"policy":{"bindings":[{"role":"r","member":"allUsers"}]}}"#, true).unwrap_err();
        assert!(error.message.contains("Unknown name \"member\" at 'policy.bindings[0]'"), "{}", error.message);
        assert!(parse_set(br#"{"policy":{},"updateMask":"bindings"}"#, false).is_err());
    }
}
