//! Evaluation of filters on the elements of one attribute. Operands are folded once, and so is each value of an
//! element, regardless of how many terms compare it.

use serde_json::Value;

use super::error::ScimError;
use super::extension::numeric;
use super::filter::{CompareOp, Filter, FilterValue, Test};
use super::schema::Attribute;
use super::work::{Work, steps};

/// A [resolved](Filter::resolved_in) filter on the elements of an attribute.
#[derive(Debug, Clone)]
pub(super) struct ElementFilter {
    attribute: &'static Attribute,
    /// The filter with its operands in lower case, unless their sub-attribute is case-exact.
    folded: Filter,
}

/// An element under test, with the values that were already folded for earlier terms.
struct Subject<'v> {
    attribute: &'static Attribute,
    element: &'v Value,
    folded: Vec<Option<String>>,
}

impl ElementFilter {
    pub(super) fn new(attribute: &'static Attribute, filter: &Filter) -> Self {
        Self { attribute, folded: folded(attribute, filter) }
    }

    /// True when an element passes.
    ///
    /// # Errors
    /// `tooMany` when the request has used up its steps.
    pub(super) fn passes(&self, element: &Value, work: &mut Work) -> Result<bool, ScimError> {
        let attribute = self.attribute;
        Subject { attribute, element, folded: vec![None; attribute.subs.len()] }.passes(&self.folded, work)
    }
}

fn folded(attribute: &'static Attribute, filter: &Filter) -> Filter {
    let all = |terms: &[Filter]| terms.iter().map(|term| folded(attribute, term)).collect();
    match filter {
        Filter::And(terms) => Filter::And(all(terms)),
        Filter::Or(terms) => Filter::Or(all(terms)),
        Filter::Not(inner) => Filter::Not(Box::new(folded(attribute, inner))),
        Filter::Attribute(path, Test::Compare(op, FilterValue::String(wanted)))
            if attribute.sub(&path.name).is_some_and(|sub| !sub.case_exact) =>
        {
            Filter::Attribute(path.clone(), Test::Compare(*op, FilterValue::String(wanted.to_lowercase())))
        }
        other => other.clone(),
    }
}

impl Subject<'_> {
    fn passes(&mut self, filter: &Filter, work: &mut Work) -> Result<bool, ScimError> {
        match filter {
            Filter::And(terms) => {
                for term in terms {
                    if !self.passes(term, work)? {
                        return Ok(false);
                    }
                }
                Ok(true)
            }
            Filter::Or(terms) => {
                for term in terms {
                    if self.passes(term, work)? {
                        return Ok(true);
                    }
                }
                Ok(false)
            }
            Filter::Not(inner) => Ok(!self.passes(inner, work)?),
            Filter::Attribute(path, test) => self.passes_test(&path.name, test, work),
            Filter::Element { .. } => Ok(false),
        }
    }

    /// Evaluates a test of the sub-attribute of this name.
    fn passes_test(&mut self, name: &str, test: &Test, work: &mut Work) -> Result<bool, ScimError> {
        let subs = self.attribute.subs.iter().zip(&mut self.folded);
        let Some((sub, folded)) = subs.into_iter().find(|(sub, _)| sub.name.eq_ignore_ascii_case(name)) else {
            return Ok(false);
        };
        work.spend(1)?;
        let value = self.element.get(sub.name);
        let (op, wanted) = match test {
            Test::Present => return Ok(!is_empty(value)),
            Test::Compare(op, wanted) => (*op, wanted),
        };
        Ok(match (wanted, value) {
            (FilterValue::Null, value) => (op == CompareOp::Equal) == is_empty(value),
            (FilterValue::Bool(wanted), value) => match (op, value.and_then(Value::as_bool)) {
                (CompareOp::Equal, Some(value)) => value == *wanted,
                (CompareOp::NotEqual, Some(value)) => value != *wanted,
                (CompareOp::NotEqual, None) => true,
                _ => false,
            },
            (FilterValue::Number(wanted), Some(Value::Number(given))) => {
                numeric(given, wanted).map_or(op == CompareOp::NotEqual, |order| op.holds(order))
            }
            (FilterValue::String(wanted), Some(Value::String(given))) => {
                work.spend(steps(given.len() + wanted.len()))?;
                if sub.case_exact {
                    return Ok(compare(op, given, wanted));
                }
                if folded.is_none() {
                    work.spend(steps(given.len()))?;
                }
                compare(op, folded.get_or_insert_with(|| given.to_lowercase()), wanted)
            }
            (FilterValue::Number(_) | FilterValue::String(_), _) => op == CompareOp::NotEqual,
        })
    }
}

pub(super) fn is_empty(value: Option<&Value>) -> bool {
    match value {
        None | Some(Value::Null) => true,
        Some(Value::String(text)) => text.is_empty(),
        Some(Value::Array(list)) => list.is_empty(),
        Some(Value::Object(map)) => map.is_empty(),
        Some(_) => false,
    }
}

pub(super) fn compare(op: CompareOp, value: &str, wanted: &str) -> bool {
    match op {
        CompareOp::Equal => value == wanted,
        CompareOp::NotEqual => value != wanted,
        CompareOp::Contains => value.contains(wanted),
        CompareOp::StartsWith => value.starts_with(wanted),
        CompareOp::EndsWith => value.ends_with(wanted),
        CompareOp::Greater => value > wanted,
        CompareOp::GreaterOrEqual => value >= wanted,
        CompareOp::Less => value < wanted,
        CompareOp::LessOrEqual => value <= wanted,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::scim::filter::AttributePath;
    use crate::scim::{Findings, ResourceType, parse};

    fn passes(of: ResourceType, name: &str, filter: &str, element: &Value) -> bool {
        let path = AttributePath { schema: None, name: name.to_owned(), sub: None };
        let attribute = of.resolve(&path).unwrap().attribute;
        let filter = parse::filter(filter, &mut Findings::new()).unwrap().resolved_in(attribute).unwrap();
        ElementFilter::new(attribute, &filter).passes(element, &mut Work::default()).unwrap()
    }

    #[test]
    fn filters_on_elements_follow_the_rfc() {
        let email = json!({"value": "Alice@example.com", "type": "work", "primary": true});
        for text in [
            "value eq \"ALICE@example.com\"",
            "value sw \"alice\" and value ew \".com\" and value co \"@\"",
            "type eq \"work\" and primary eq true and VALUE eq \"alice@example.com\"",
            "type eq \"home\" or primary eq true",
            "not (display pr)",
            "display eq null",
            "display ne \"x\"",
            "primary ne false",
            "value gt \"Al\" and value le \"b\"",
        ] {
            assert!(passes(ResourceType::User, "emails", text, &email), "{text}");
        }
        for text in [
            "type eq \"home\"",
            "value eq \"alice@example.com\" and type eq \"home\"",
            "primary eq false",
            "display pr",
            "display eq \"\"",
            "type ne null and value ge \"b\"",
        ] {
            assert!(!passes(ResourceType::User, "emails", text, &email), "{text}");
        }
        let member = json!({"value": "x1"});
        assert!(passes(ResourceType::Group, "members", "value eq \"x1\"", &member));
        assert!(!passes(ResourceType::Group, "members", "value eq \"X1\"", &member), "an id is case-exact");
    }
}
