//! The cost of requests in steps.

use serde_json::{Value, json};

use super::super::*;
use super::{alice, map, user, user_id};

/// A user with 500 distinct values of `length` bytes.
fn heavy(length: usize) -> Value {
    let emails: Vec<Value> =
        (0..500).map(|number| json!({"value": format!("{number:0length$}"), "type": "w"})).collect();
    user(json!({"userName": "a", "emails": emails}))
}

fn spent(user: &Value, operations: &[Value]) -> (Result<Value, ScimError>, u64) {
    let body = map(json!({"Operations": operations}));
    let change = match ResourceChange::patch(ResourceType::User, user_id(), body, &mut Findings::new()) {
        Ok(change) => change,
        Err(refused) => return (Err(refused), MAX_WORK),
    };
    let (result, work) = change.apply_counted(user, &mut Findings::new());
    (result, work.spent())
}

#[test]
fn what_identity_providers_send_takes_a_thousandth_of_what_one_request_may() {
    let entra = json!([
        {"op": "Replace", "path": "emails[type eq \"work\"].value", "value": "b@example.com"},
        {"op": "Replace", "path": "name.familyName", "value": "B"},
        {"op": "Add", "path": "addresses[type eq \"work\"].formatted", "value": "1 Example Street"},
        {"op": "replace", "value": {"active": false, "displayName": "B", "name.givenName": "C"}},
    ]);
    let (result, steps) = spent(&alice(), entra.as_array().unwrap());
    assert!(result.is_ok() && steps < MAX_WORK / 1000, "{result:?}: {steps}");
}

#[test]
fn six_hundred_filters_of_sixty_four_terms_on_five_hundred_values_are_refused_within_the_bound() {
    let terms = vec!["value co \"x\""; 64].join(" or ");
    let operations = vec![json!({"op": "remove", "path": format!("emails[{terms}].display")}); 600];
    assert!(json!(operations).to_string().len() > 600_000);
    let (result, steps) = spent(&heavy(7000), &operations);
    assert_eq!(result.unwrap_err().scim_type(), Some("tooMany"));
    // The bound is exceeded by at most one operation, with the text that it was about to read.
    assert!(steps < MAX_WORK + 1000, "{steps}");
}

#[test]
fn a_value_is_folded_once_however_many_terms_ask_for_it() {
    let filter = |terms: usize| format!("emails[{}].display", vec!["value eq \"x\""; terms].join(" or "));
    let operation = |terms| [json!({"op": "remove", "path": filter(terms)})];
    let long = user(json!({"userName": "a", "emails": [{"value": "y".repeat(64_000)}]}));
    let [one, many] = [1, 64].map(|terms| spent(&long, &operation(terms)).1);
    // Folding takes a thousand steps, once. Each further term may have to compare all of the text, but does not fold
    // it.
    assert!(one > 2000, "{one}");
    assert_eq!(many - one, 63 * 1002);
}
