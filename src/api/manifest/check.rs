//! The structural part of a CRD's schema, compiled once and applied to nodes, so that every problem has a position.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::str::FromStr;

use jiff::Timestamp;
use kube::core::cel::{CompiledSchema, ErrorKind, Validator, compile_schema};
use regex::Regex;
use serde_json::{Map, Value};

use super::yaml::{Content, Node, Place};

/// The requirements of a node.
#[derive(Debug)]
pub(super) struct Check {
    kind: Kind,
    fields: BTreeMap<String, Check>,
    required: Vec<String>,
    values: Option<Box<Check>>,
    items: Option<Box<Check>>,
    unique: Unique,
    count: (usize, usize),
    length: (usize, usize),
    pattern: Option<Regex>,
    choices: Vec<String>,
    minimum: Option<f64>,
    maximum: Option<f64>,
    default: Option<Value>,
    rules: Option<Rules>,
}

/// The CEL rules of one node, without those of its descendants.
#[derive(Debug)]
struct Rules {
    compiled: CompiledSchema,
    /// Cached results of the rules for texts. Roles and patterns recur, and the interpreter recompiles a regular
    /// expression every time it evaluates one.
    texts: RefCell<HashMap<String, Vec<RuleError>>>,
}

/// Largest number of cached texts of one node.
const MAX_REMEMBERED: usize = 4096;

/// A rule that a value violates.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct RuleError {
    /// The path of the value.
    pub(crate) path: String,
    /// The message of the rule, or why the rule cannot be evaluated.
    pub(crate) message: String,
    /// True when the value violates the rule; false when the rule could not be evaluated on the value.
    pub(crate) evaluated: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Any,
    Object,
    List,
    Text,
    Time,
    Integer,
    Boolean,
}

#[derive(Debug, PartialEq, Eq)]
enum Unique {
    No,
    Items,
    Keys(Vec<String>),
}

/// A schema that this checker does not fully understand, so that it must not pass as checked.
#[derive(Debug, thiserror::Error)]
#[error("the schema cannot be compiled: `{0}` is not understood")]
pub(super) struct SchemaError(String);

/// A problem with its path and position in the document.
#[derive(Debug)]
pub(super) struct Finding {
    pub(crate) place: Place,
    pub(crate) path: String,
    pub(crate) reason: &'static str,
    pub(crate) message: String,
}

impl Check {
    /// Compiles a node of a structural schema.
    pub(crate) fn compile(schema: &Value) -> Result<Self, SchemaError> {
        let node = schema.as_object().ok_or_else(|| SchemaError("a schema that is no object".to_owned()))?;
        let mut check = Self::anything();
        for (keyword, value) in node {
            let wrong = || SchemaError(format!("{keyword}: {value}"));
            let number = || value.as_u64().and_then(|number| usize::try_from(number).ok()).ok_or_else(wrong);
            match keyword.as_str() {
                // Keywords that are handled together with another one, or that do not affect objects.
                "description" | "x-kubernetes-list-map-keys" | "format" => {}
                "x-kubernetes-validations" => check.rules = Some(Rules::of(schema)?),
                "type" => {
                    check.kind = match (value.as_str(), node.get("format").and_then(Value::as_str)) {
                        (Some("object"), None) => Kind::Object,
                        (Some("array"), None) => Kind::List,
                        (Some("string"), None) => Kind::Text,
                        (Some("string"), Some("date-time")) => Kind::Time,
                        (Some("integer"), None | Some("int64")) => Kind::Integer,
                        (Some("boolean"), None) => Kind::Boolean,
                        _ => return Err(wrong()),
                    }
                }
                "properties" => {
                    for (name, child) in value.as_object().ok_or_else(wrong)? {
                        check.fields.insert(name.clone(), Self::compile(child)?);
                    }
                }
                "required" => check.required = texts(value).ok_or_else(wrong)?,
                "additionalProperties" => check.values = Some(Box::new(Self::compile(value)?)),
                "items" => check.items = Some(Box::new(Self::compile(value)?)),
                "minItems" | "minProperties" => check.count.0 = number()?,
                "maxItems" | "maxProperties" => check.count.1 = number()?,
                "minLength" => check.length.0 = number()?,
                "maxLength" => check.length.1 = number()?,
                "minimum" => check.minimum = Some(value.as_f64().ok_or_else(wrong)?),
                "maximum" => check.maximum = Some(value.as_f64().ok_or_else(wrong)?),
                "pattern" => {
                    let pattern = value.as_str().ok_or_else(wrong)?;
                    check.pattern = Some(Regex::new(pattern).map_err(|_| wrong())?);
                }
                "enum" => check.choices = texts(value).ok_or_else(wrong)?,
                "default" => check.default = Some(value.clone()),
                "x-kubernetes-list-type" => {
                    check.unique = match value.as_str() {
                        Some("atomic") => Unique::No,
                        Some("set") => Unique::Items,
                        Some("map") => {
                            let keys = node.get("x-kubernetes-list-map-keys").and_then(texts);
                            Unique::Keys(keys.ok_or_else(wrong)?)
                        }
                        _ => return Err(wrong()),
                    }
                }
                _ => return Err(wrong()),
            }
        }
        Ok(check)
    }

    /// A check that accepts every value.
    pub(crate) fn anything() -> Self {
        Self {
            kind: Kind::Any,
            fields: BTreeMap::new(),
            required: Vec::new(),
            values: None,
            items: None,
            unique: Unique::No,
            count: (0, usize::MAX),
            length: (0, usize::MAX),
            pattern: None,
            choices: Vec::new(),
            minimum: None,
            maximum: None,
            default: None,
            rules: None,
        }
    }

    /// Replaces the check of a field.
    pub(crate) fn replace_field(&mut self, name: &str, check: Check) {
        self.fields.insert(name.to_owned(), check);
    }

    /// Makes a field required.
    pub(crate) fn require(&mut self, name: &str) {
        self.required.insert(0, name.to_owned());
    }

    /// Collects all problems of the node, in the order of the text.
    pub(crate) fn check(&self, node: &Node, path: &str, found: &mut Vec<Finding>) {
        let mut say =
            |reason, message| found.push(Finding { place: node.place, path: path.to_owned(), reason, message });
        match (self.kind, &node.content) {
            (Kind::Any, _) | (Kind::Boolean, Content::Scalar(Value::Bool(_))) => {}
            (Kind::Object, Content::Map(entries)) => {
                for (key, child) in entries {
                    let path = join(path, &key.text);
                    match self.fields.get(&key.text).or(self.values.as_deref()) {
                        // Null means the default where there is one, as in the API server.
                        Some(field) if child.is_null() && field.default.is_some() => {}
                        Some(field) => field.check(child, &path, found),
                        None => {
                            let known: Vec<_> = self.fields.keys().map(String::as_str).collect();
                            let message = format!("unknown field; the fields here are {}", known.join(", "));
                            found.push(Finding { place: key.place, path, reason: "UnknownField", message });
                        }
                    }
                }
                for name in &self.required {
                    if node.get(name).is_none() {
                        let path = join(path, name);
                        let message = "required and missing".to_owned();
                        found.push(Finding { place: node.place, path, reason: "MissingField", message });
                    }
                }
                self.counted(entries.len(), &mut |reason, message| {
                    found.push(Finding { place: node.place, path: path.to_owned(), reason, message });
                });
            }
            (Kind::List, Content::List(items)) => {
                self.counted(items.len(), &mut say);
                self.duplicates(items, path, found);
                if let Some(check) = &self.items {
                    for (index, item) in items.iter().enumerate().take(self.count.1) {
                        check.check(item, &format!("{path}[{index}]"), found);
                    }
                }
            }
            (Kind::Text, Content::Scalar(Value::String(text))) => self.text(text, &mut say),
            (Kind::Time, Content::Scalar(Value::String(text))) => {
                if !is_time(text) {
                    let message = format!("`{}` is not a time: write it as 2027-01-31T00:00:00Z", shown(text));
                    say("InvalidTime", message);
                }
            }
            (Kind::Integer, Content::Scalar(Value::Number(number))) if number.is_i64() || number.is_u64() => {
                if let Some(minimum) = self.minimum.filter(|minimum| number.as_f64().is_some_and(|n| n < *minimum)) {
                    say("OutOfRange", format!("must be at least {minimum}"));
                }
                if let Some(maximum) = self.maximum.filter(|maximum| number.as_f64().is_some_and(|n| n > *maximum)) {
                    say("OutOfRange", format!("must be at most {maximum}"));
                }
            }
            (kind, content) => {
                let mend = match (kind, content) {
                    (_, Content::Scalar(Value::Null)) => "; write a value or remove the field",
                    (Kind::Text | Kind::Time, Content::Scalar(_)) => "; write it in quotes",
                    _ => "",
                };
                say("WrongType", format!("must be {}, is {}{mend}", kind.name(), name_of(content)));
            }
        }
    }

    fn counted(&self, there: usize, say: &mut impl FnMut(&'static str, String)) {
        let (least, most) = self.count;
        if there < least {
            say("TooFew", format!("must have at least {}", entries(least)));
        }
        if there > most {
            say("TooMany", format!("must have at most {}, has {there}", entries(most)));
        }
    }

    fn text(&self, text: &str, say: &mut impl FnMut(&'static str, String)) {
        let length = text.chars().count();
        if length < self.length.0 {
            say("TooShort", format!("must have at least {}", characters(self.length.0)));
        } else if length > self.length.1 {
            say("TooLong", format!("must have at most {}, has {length}", characters(self.length.1)));
        } else if let Some(pattern) = self.pattern.as_ref().filter(|pattern| !pattern.is_match(text)) {
            say("PatternMismatch", format!("`{}` does not have the form {pattern}", shown(text)));
        } else if !self.choices.is_empty() && !self.choices.iter().any(|choice| choice == text) {
            say("ValueNotAllowed", format!("`{}` is none of {}", shown(text), self.choices.join(", ")));
        }
    }

    fn duplicates(&self, items: &[Node], path: &str, found: &mut Vec<Finding>) {
        let identity = |item: &Node| match &self.unique {
            Unique::No => None,
            Unique::Items => Some(item.to_value().to_string()),
            Unique::Keys(keys) => {
                let values: Option<Vec<_>> =
                    keys.iter().map(|key| Some(item.get(key)?.to_value().to_string())).collect();
                values.map(|values| values.join(" "))
            }
        };
        let mut seen = BTreeSet::new();
        for (index, item) in items.iter().enumerate() {
            let Some(identity) = identity(item) else { continue };
            if !seen.insert(identity.clone()) {
                let message = format!("{} stands twice in the list", shown(&identity).replace('"', "`"));
                let path = format!("{path}[{index}]");
                found.push(Finding { place: item.place, path, reason: "DuplicateItem", message });
            }
        }
    }

    /// The node as a value with the schema's defaults, as the API server would store it. Unknown fields and nulls are
    /// omitted.
    pub(crate) fn value(&self, node: &Node) -> Value {
        match &node.content {
            Content::Map(entries) if self.kind == Kind::Object => {
                let mut fields = Map::new();
                for (key, child) in entries.iter().filter(|(_, child)| !child.is_null()) {
                    if let Some(check) = self.fields.get(&key.text).or(self.values.as_deref()) {
                        fields.insert(key.text.clone(), check.value(child));
                    }
                }
                for (name, check) in &self.fields {
                    if let Some(default) = check.default.as_ref().filter(|_| !fields.contains_key(name)) {
                        fields.insert(name.clone(), default.clone());
                    }
                }
                Value::Object(fields)
            }
            Content::List(items) => match &self.items {
                Some(check) => Value::Array(items.iter().map(|item| check.value(item)).collect()),
                None => node.to_value(),
            },
            _ => node.to_value(),
        }
    }
}

impl Check {
    /// Evaluates the CEL rules of this node and its descendants on a value with defaults.
    pub(crate) fn rules(&self, value: &Value, path: &str, validator: &Validator, errors: &mut Vec<RuleError>) {
        if let Some(rules) = &self.rules {
            let broken = rules.of_value(value, validator);
            errors.extend(broken.into_iter().map(|error| RuleError { path: path.to_owned(), ..error }));
        }
        match value {
            Value::Object(fields) if !self.fields.is_empty() => {
                for (name, child) in fields {
                    if let Some(check) = self.fields.get(name) {
                        check.rules(child, &join(path, name), validator, errors);
                    }
                }
            }
            Value::Array(items) => {
                for (index, item) in items.iter().enumerate() {
                    if let Some(check) = &self.items {
                        check.rules(item, &format!("{path}[{index}]"), validator, errors);
                    }
                }
            }
            _ => {}
        }
    }
}

impl Rules {
    fn of(schema: &Value) -> Result<Self, SchemaError> {
        let mut own = schema.clone();
        for below in ["properties", "items"] {
            if let Some(child) = own.get_mut(below) {
                without_rules(child);
            }
        }
        let compiled = compile_schema(&own);
        match compiled.compilation_errors().first() {
            Some(error) => Err(SchemaError(error.to_string())),
            None => Ok(Self { compiled, texts: RefCell::default() }),
        }
    }

    fn of_value(&self, value: &Value, validator: &Validator) -> Vec<RuleError> {
        let evaluate = || match validator.validate_compiled(&self.compiled, value, None) {
            Ok(()) => Vec::new(),
            Err(errors) => errors
                .into_iter()
                .map(|error| RuleError {
                    path: String::new(),
                    message: error.message,
                    evaluated: error.kind == ErrorKind::ValidationFailure,
                })
                .collect(),
        };
        let Value::String(text) = value else { return evaluate() };
        if let Some(errors) = self.texts.borrow().get(text) {
            return errors.clone();
        }
        let errors = evaluate();
        let mut texts = self.texts.borrow_mut();
        if texts.len() >= MAX_REMEMBERED {
            texts.clear();
        }
        texts.insert(text.clone(), errors.clone());
        errors
    }
}

fn without_rules(schema: &mut Value) {
    match schema {
        Value::Object(node) => {
            node.remove("x-kubernetes-validations");
            node.values_mut().for_each(without_rules);
        }
        Value::Array(items) => items.iter_mut().for_each(without_rules),
        _ => {}
    }
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Any => "anything",
            Self::Object => "a map",
            Self::List => "a list",
            Self::Text => "a text",
            Self::Time => "a time",
            Self::Integer => "a whole number",
            Self::Boolean => "true or false",
        }
    }
}

fn name_of(content: &Content) -> &'static str {
    match content {
        Content::Map(_) => "a map",
        Content::List(_) => "a list",
        Content::Scalar(Value::Null) => "empty",
        Content::Scalar(Value::Bool(_)) => "true or false",
        Content::Scalar(Value::Number(_)) => "a number",
        Content::Scalar(_) => "a text",
    }
}

fn texts(value: &Value) -> Option<Vec<String>> {
    value.as_array()?.iter().map(|text| text.as_str().map(str::to_owned)).collect()
}

/// True for RFC 3339 with seconds and an offset, the form that both the API server and this program accept.
fn is_time(text: &str) -> bool {
    let bytes = text.as_bytes();
    let shape = bytes.len() >= 20 && bytes.len() <= 40 && matches!(bytes[10], b'T' | b't') && !text.contains('[');
    shape && text.is_ascii() && Timestamp::from_str(text).is_ok()
}

pub(super) fn join(path: &str, field: &str) -> String {
    let field = shown(field);
    if path.is_empty() { field } else { format!("{path}.{field}") }
}

fn entries(count: usize) -> String {
    if count == 1 { "1 entry".to_owned() } else { format!("{count} entries") }
}

fn characters(count: usize) -> String {
    if count == 1 { "1 character".to_owned() } else { format!("{count} characters") }
}

/// A value as shown in a message: short, and without characters that would move the cursor of a terminal.
pub(super) fn shown(text: &str) -> String {
    text.chars().take(80).map(|character| if character.is_control() { ' ' } else { character }).collect()
}
