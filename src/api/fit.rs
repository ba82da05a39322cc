//! Fits a status to its schema, so that the API server accepts it: texts that are too long are cut, and entries beyond
//! a limit are omitted. If the API server refused a status, the former one would remain, and might say that all is
//! well.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use jiff::Timestamp;
use regex::Regex;
use serde_json::{Map, Value};

use super::crds;
use crate::model::Kind;

/// The status of a new object before the first reconcile, as in Flux's kinds. kstatus considers an object whose
/// `observedGeneration` differs from its generation to be in progress.
/// `observedGeneration` is not its generation for one that is in progress.
#[must_use]
pub(crate) fn initial_status() -> Value {
    serde_json::json!({ "observedGeneration": -1 })
}

/// True for a status that has not been written by a reconcile yet.
#[must_use]
pub(crate) fn is_initial(status: &Value) -> bool {
    status.as_object().is_none_or(Map::is_empty) || *status == initial_status()
}

/// The compiled schemas of the statuses by kind. Empty when compilation fails, which a test excludes.
static STATUSES: LazyLock<BTreeMap<Kind, Node>> = LazyLock::new(|| {
    let mut statuses = BTreeMap::new();
    for crd in crds().unwrap_or_default() {
        let Ok(value) = serde_json::to_value(&crd.spec.versions) else { continue };
        let status = value.pointer("/0/schema/openAPIV3Schema/properties/status");
        if let Some((kind, status)) = Kind::from_word(&crd.spec.names.kind).zip(status) {
            statuses.insert(kind, Node::compile(status));
        }
    }
    statuses
});

/// Fits the status of an object of this kind to its schema. A status that already fits is returned unchanged.
#[must_use]
pub(crate) fn fit_status(kind: Kind, status: Value) -> Value {
    match STATUSES.get(&kind) {
        Some(node) => node.fit(status).unwrap_or_else(initial_status),
        None => status,
    }
}

/// One node of a structural schema, reduced to what bounds values.
#[derive(Debug)]
enum Node {
    Text(Text),
    Integer { least: i64, most: i64 },
    List { most: usize, items: Box<Node>, unique: Unique },
    Map { most: usize, values: Box<Node> },
    Object { fields: BTreeMap<String, Node>, required: Vec<String> },
    Any,
}

#[derive(Debug)]
struct Text {
    least: usize,
    most: usize,
    pattern: Option<Regex>,
    choices: Vec<String>,
    is_time: bool,
}

#[derive(Debug)]
enum Unique {
    No,
    Whole,
    Keys(Vec<String>),
}

impl Node {
    fn compile(schema: &Value) -> Self {
        let text = |keyword: &str| schema[keyword].as_str();
        let number = |keyword: &str, default: usize| {
            schema[keyword].as_u64().and_then(|number| usize::try_from(number).ok()).unwrap_or(default)
        };
        // Bounds of numbers are floating-point in the type of a CRD.
        let bound = |keyword: &str, default: i64| {
            schema[keyword].as_f64().and_then(|number| format!("{number:.0}").parse().ok()).unwrap_or(default)
        };
        match text("type") {
            Some("string") => Self::Text(Text {
                least: number("minLength", 0),
                most: number("maxLength", usize::MAX),
                pattern: text("pattern").and_then(|pattern| Regex::new(pattern).ok()),
                choices: texts(&schema["enum"]),
                is_time: text("format") == Some("date-time"),
            }),
            Some("integer") => Self::Integer { least: bound("minimum", i64::MIN), most: bound("maximum", i64::MAX) },
            Some("array") => Self::List {
                most: number("maxItems", usize::MAX),
                items: Box::new(Self::compile(&schema["items"])),
                unique: match text("x-kubernetes-list-type") {
                    Some("set") => Unique::Whole,
                    Some("map") => Unique::Keys(texts(&schema["x-kubernetes-list-map-keys"])),
                    _ => Unique::No,
                },
            },
            Some("object") if schema.get("additionalProperties").is_some() => Self::Map {
                most: number("maxProperties", usize::MAX),
                values: Box::new(Self::compile(&schema["additionalProperties"])),
            },
            Some("object") => {
                let fields = schema["properties"].as_object();
                let compiled = |(name, child): (&String, &Value)| (name.clone(), Self::compile(child));
                Self::Object {
                    fields: fields.into_iter().flatten().map(compiled).collect(),
                    required: texts(&schema["required"]),
                }
            }
            _ => Self::Any,
        }
    }

    /// Fits the value; none when that is impossible and the value has to be omitted.
    fn fit(&self, value: Value) -> Option<Value> {
        match (self, value) {
            (Self::Any, value) => Some(value),
            (Self::Text(text), Value::String(value)) => text.fit(value).map(Value::String),
            (Self::Integer { least, most }, Value::Number(number)) => {
                let value = number.as_i64().or_else(|| number.as_u64().map(|_| i64::MAX))?;
                Some(value.clamp(*least, *most).into())
            }
            (Self::List { most, items, unique }, Value::Array(values)) => {
                let mut seen = BTreeSet::new();
                let fitting = values.into_iter().filter_map(|value| items.fit(value));
                Some(fitting.filter(|value| unique.is_new(value, &mut seen)).take(*most).collect())
            }
            (Self::Map { most, values }, Value::Object(fields)) => {
                let fitting = fields.into_iter().filter_map(|(name, value)| Some((name, values.fit(value)?)));
                Some(Value::Object(fitting.take(*most).collect()))
            }
            (Self::Object { fields, required }, Value::Object(values)) => {
                let known = values.into_iter().filter_map(|(name, value)| {
                    let value = fields.get(&name)?.fit(value)?;
                    Some((name, value))
                });
                let fitting: Map<String, Value> = known.collect();
                required.iter().all(|name| fitting.contains_key(name)).then_some(Value::Object(fitting))
            }
            _ => None,
        }
    }
}

impl Text {
    fn fit(&self, mut text: String) -> Option<String> {
        if text.chars().count() > self.most {
            let is_prose = self.pattern.is_none() && self.choices.is_empty() && !self.is_time && self.most > 0;
            let kept = if is_prose { self.most - 1 } else { self.most };
            text = text.chars().take(kept).chain(is_prose.then_some('…')).collect();
        }
        let fits = text.chars().count() >= self.least
            && self.pattern.as_ref().is_none_or(|pattern| pattern.is_match(&text))
            && (self.choices.is_empty() || self.choices.contains(&text))
            && (!self.is_time || is_time(&text));
        fits.then_some(text)
    }
}

impl Unique {
    fn is_new(&self, value: &Value, seen: &mut BTreeSet<String>) -> bool {
        match self {
            Self::No => true,
            Self::Whole => seen.insert(value.to_string()),
            Self::Keys(keys) => {
                let key: Vec<String> = keys.iter().map(|key| value[key].to_string()).collect();
                seen.insert(key.join("\n"))
            }
        }
    }
}

/// True for RFC 3339 as the API server accepts it: with a year of four digits.
fn is_time(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_digit()) && text.parse::<Timestamp>().is_ok()
}

fn texts(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    /// The schema of a kind's status in the CRD.
    pub(crate) fn status_schema(kind: Kind) -> Value {
        let crds = crds().unwrap();
        let crd = crds.iter().find(|crd| crd.spec.names.kind == kind.as_str()).unwrap();
        let versions = serde_json::to_value(&crd.spec.versions).unwrap();
        versions.pointer("/0/schema/openAPIV3Schema/properties/status").unwrap().clone()
    }

    /// Everything that a schema refuses in a value, derived keyword by keyword from the schema itself.
    #[expect(clippy::cast_precision_loss, reason = "lengths and bounds are small")]
    pub(crate) fn refusals(schema: &Value, value: &Value, path: &str, found: &mut Vec<String>) {
        let bound = |keyword: &str| schema.get(keyword).map(|bound| bound.as_f64().unwrap());
        let mut within = |what: &str, there: f64, least: &str, most: &str| {
            if bound(least).is_some_and(|least| there < least) || bound(most).is_some_and(|most| there > most) {
                found.push(format!("{path}: {what} {there}"));
            }
        };
        match value {
            Value::String(text) => {
                within("length", text.chars().count() as f64, "minLength", "maxLength");
                let is_time = || text.as_bytes()[0].is_ascii_digit() && text.parse::<Timestamp>().is_ok();
                let pattern =
                    schema["pattern"].as_str().is_none_or(|pattern| Regex::new(pattern).unwrap().is_match(text));
                let choice = schema["enum"].as_array().is_none_or(|choices| choices.contains(value));
                if schema["type"] != "string" || !pattern || !choice || (schema["format"] == "date-time" && !is_time())
                {
                    found.push(format!("{path}: {text:?}"));
                }
            }
            Value::Number(number) => {
                within("number", number.as_f64().unwrap(), "minimum", "maximum");
                if schema["type"] != "integer" || !number.is_i64() {
                    found.push(format!("{path}: {number}"));
                }
            }
            Value::Array(items) => {
                within("items", items.len() as f64, "minItems", "maxItems");
                let keys = texts(&schema["x-kubernetes-list-map-keys"]);
                let identity = |item: &Value| match schema["x-kubernetes-list-type"].as_str() {
                    Some("map") => Some(keys.iter().map(|key| item[key].to_string()).collect::<Vec<_>>().join(" ")),
                    Some("set") => Some(item.to_string()),
                    _ => None,
                };
                let identities: Vec<String> = items.iter().filter_map(identity).collect();
                if identities.iter().collect::<BTreeSet<_>>().len() != identities.len() {
                    found.push(format!("{path}: an entry stands twice"));
                }
                for (at, item) in items.iter().enumerate() {
                    refusals(&schema["items"], item, &format!("{path}[{at}]"), found);
                }
            }
            Value::Object(fields) => {
                within("properties", fields.len() as f64, "minProperties", "maxProperties");
                for name in texts(&schema["required"]) {
                    if !fields.contains_key(&name) {
                        found.push(format!("{path}.{name}: required"));
                    }
                }
                for (name, value) in fields {
                    let child = schema["properties"].get(name).or_else(|| schema.get("additionalProperties"));
                    match child {
                        Some(child) => refusals(child, value, &format!("{path}.{name}"), found),
                        None => found.push(format!("{path}.{name}: unknown")),
                    }
                }
            }
            Value::Null | Value::Bool(_) => found.push(format!("{path}: {value}")),
        }
    }

    #[track_caller]
    pub(crate) fn assert_accepted(kind: Kind, status: &Value) {
        let mut found = Vec::new();
        refusals(&status_schema(kind), status, "status", &mut found);
        assert!(found.is_empty(), "{kind}: {found:#?}");
    }

    /// Values of the shape that a schema describes, both within and beyond its bounds.
    fn values(schema: &Value) -> BoxedStrategy<Value> {
        let most = |keyword: &str| usize::try_from(schema[keyword].as_u64().unwrap_or(8)).unwrap();
        match schema["type"].as_str().unwrap() {
            "string" => {
                let choices: Vec<Value> = schema["enum"].as_array().cloned().unwrap_or_default();
                let long = most("maxLength") + 3;
                let text = prop_oneof![
                    4 => "[A-Za-z]{1,12}",
                    1 => Just(String::new()),
                    1 => Just("é".repeat(long)),
                    1 => Just("a".repeat(long - 3)),
                    1 => "\\PC{0,40}",
                    1 => Just("2027-01-31T12:00:00Z".to_owned()),
                    1 => Just("-000001-01-31T12:00:00Z".to_owned()),
                ]
                .prop_map(Value::String);
                if choices.is_empty() { text.boxed() } else { prop_oneof![prop::sample::select(choices), text].boxed() }
            }
            "integer" => prop_oneof![any::<i64>(), Just(0), Just(-1)].prop_map(Value::from).boxed(),
            "array" => {
                let item = values(&schema["items"]);
                let many = most("maxItems") + 2;
                prop_oneof![
                    4 => prop::collection::vec(item.clone(), 0..3).prop_map(Value::Array),
                    1 => item.prop_map(move |item| Value::Array(vec![item; many])),
                ]
                .boxed()
            }
            _ => {
                let fields = schema["properties"].as_object().unwrap();
                let each: Vec<_> = fields
                    .iter()
                    .map(|(name, child)| {
                        let name = name.clone();
                        prop::option::weighted(0.8, values(child))
                            .prop_map(move |value| value.map(|value| (name.clone(), value)))
                    })
                    .collect();
                (each, any::<bool>())
                    .prop_map(|(fields, unknown)| {
                        let mut fields: Map<String, Value> = fields.into_iter().flatten().collect();
                        if unknown {
                            fields.insert("notInTheSchema".to_owned(), json!([1, {"a": null}]));
                        }
                        Value::Object(fields)
                    })
                    .boxed()
            }
        }
    }

    fn statuses() -> impl Strategy<Value = (Kind, Value)> {
        prop::sample::select(Kind::RESOURCES.to_vec())
            .prop_flat_map(|kind| values(&status_schema(kind)).prop_map(move |status| (kind, status)))
    }

    proptest! {
        #![proptest_config(crate::model::cases::cases(64))]
        #[test]
        fn whatever_a_status_holds_it_is_made_to_fit_its_schema((kind, status) in statuses()) {
            let fitted = fit_status(kind, status);
            let mut found = Vec::new();
            refusals(&status_schema(kind), &fitted, "status", &mut found);
            prop_assert!(found.is_empty(), "{:#?}", found);
            prop_assert_eq!(fit_status(kind, fitted.clone()), fitted, "what fits stays as it is");
        }
    }

    #[test]
    fn every_kind_has_a_schema_and_its_initial_status_fits_it() {
        assert!(STATUSES.keys().eq(&Kind::RESOURCES));
        for kind in Kind::RESOURCES {
            assert_accepted(kind, &initial_status());
            assert_eq!(status_schema(kind)["default"], initial_status());
        }
        assert!(is_initial(&Value::Null) && is_initial(&json!({})) && is_initial(&initial_status()));
        assert!(!is_initial(&json!({"observedGeneration": 1})));
    }
}
