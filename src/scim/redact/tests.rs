//! Redacted requests say nothing about people, and keep their form.

use std::collections::BTreeSet;

use proptest::prelude::*;
use serde_json::json;

use super::super::{Findings, ResourceType, json as scim_json, new_resource};
use super::*;

fn redactor() -> Redactor {
    Redactor::new(&[3; KEY_BYTES], "https://scim.example.com/", &"okta".parse().unwrap())
}

#[test]
fn words_of_scim_stay_and_what_is_compared_stays_equal() {
    let redactor = redactor();
    let id = "2819c223-7f76-453a-919d-413861904646";
    let body = redactor.body(&json!({
        "schemas": ["urn:ietf:params:scim:schemas:core:2.0:User", "urn:example:scim:Acme:1.0:User"],
        "userName": "Alice.Smith+test@example.com", "name.givenName": "Alice", "active": "False", "id": id,
        "emails": [{"type": "work", "primary": true, "value": "alice.smith+test@example.com"}],
        "members": [{"value": id, "$ref": format!("https://scim.example.com/idp/okta/scim/v2/Users/{id}")}],
        "password": "correct horse", "urn:example:scim:Acme:1.0:User": {"salary": 50000, "hired": "2020-01-31T00:00:00Z"},
        "path": "emails[type eq \"work\" and value eq \"alice.smith+test@example.com\"].value",
    }));
    assert_eq!(body["schemas"][0], "urn:ietf:params:scim:schemas:core:2.0:User");
    let email = body["emails"][0]["value"].as_str().unwrap();
    assert_eq!(body["userName"].as_str().unwrap().to_lowercase(), email);
    assert_eq!(body["path"], format!("emails[type eq \"work\" and value eq \"{email}\"].value"));
    assert_eq!(
        (&body["active"], &body["emails"][0]["type"], &body["id"]),
        (&json!("False"), &json!("work"), &json!(id))
    );
    assert_eq!(body["members"][0]["$ref"], format!("{SERVER}/idp/okta/scim/v2/Users/{id}"));
    assert_eq!(body["password"], "secret");
    let extension = body["schemas"][1].as_str().unwrap();
    assert!(
        extension.starts_with("urn:") && extension.ends_with(":1.0:User") && !extension.contains("Acme"),
        "{extension}"
    );
    let salary = body[extension].as_object().unwrap().values().next().unwrap();
    assert!(salary.as_u64().unwrap() >= 10_000 && *salary != 50000, "{salary}");
    let shown = body.to_string();
    for word in ["lice", "mith", "xample.com", "acme", "Acme", "salary", "50000", "2020-01", "horse"] {
        assert!(!shown.contains(word), "{word}: {shown}");
    }
}

#[test]
fn queries_and_paths_keep_their_form() {
    let redactor = redactor();
    let body = redactor.body(&json!("a+b@example.com")).as_str().unwrap().to_owned();
    let (local, domain) = body.split_once('@').unwrap();
    for (given, wanted) in [
        ("startIndex=1&count=100&", "startIndex=1&count=100&".to_owned()),
        ("filter=userName+eq+%22a+b@example.com%22", format!("filter=userName+eq+%22{local}%40{domain}%22")),
        (
            "filter=userName%20eq%20%22a%2Bb%40example.com%22",
            format!("filter=userName%20eq%20%22{}%40{domain}%22", local.replace('+', "%2B")),
        ),
        ("filter=active%20Eq%20true&aadOptscim062020", "filter=active%20Eq%20true&aadOptscim062020".to_owned()),
        (
            "filter=meta.lastModified%20gt%20%222026-06-01T00%3A00%3A00Z%22",
            "filter=meta.lastModified%20gt%20%222026-06-01T00%3A00%3A00Z%22".to_owned(),
        ),
        ("attributes=userName,emails", "attributes=userName%2Cemails".to_owned()),
    ] {
        assert_eq!(redactor.query(given), wanted);
    }
    assert_eq!(redactor.url_path("/Users/.search"), "/Users/.search");
    assert_eq!(
        redactor.url_path("/Schemas/urn:ietf:params:scim:schemas:core:2.0:User"),
        "/Schemas/urn:ietf:params:scim:schemas:core:2.0:User"
    );
    assert!(!redactor.url_path("/Users/alice").contains("alice"));
}

/// Words as people have them, in the places of a request where a client may put them.
fn words() -> impl Strategy<Value = Vec<String>> {
    prop::collection::vec("[A-Z][a-zé]{5,9}|[0-9]{6,9}|[а-я]{5,8}|[ａ-ｚ]{5,8}|[一-龥]{3,5}", 12)
}

fn request(words: &[String]) -> Value {
    let word = |index: usize| words[index % words.len()].clone();
    json!({
        "schemas": ["urn:ietf:params:scim:schemas:core:2.0:User", word(0)],
        "userName": format!("{}@{}.example", word(1), word(2)), "externalId": word(3),
        "name": {"givenName": word(4), "familyName": format!("{} von {}", word(5), word(6))},
        "emails": [{"value": format!("{}+{}@x.example", word(7), word(8)), "type": word(9), "primary": word(10)}],
        "x509Certificates": [{"value": STANDARD.encode(word(0))}], "password": word(1), word(2): word(3), "active": word(4),
        format!("urn:example:{}:User", word(5)): {word(6): [word(7), {"value": word(8)}], "at": "1980-02-03T04:05:06Z"},
        "Operations": [
            {"op": word(9), "path": format!("emails[value eq \"{}\" or type eq \"{}\"].{}", word(10), word(11), word(0)), "value": word(1)},
            {"op": "add", "value": {format!("name.{}", word(2)): word(3), "members": json!([{"value": word(4)}]).to_string()}},
            {"method": "PUT", "path": format!("/Users/{}", word(5)), "bulkId": word(6), "data": {"manager": {"$ref": format!("https://{}/", word(7))}}},
        ],
        "meta": {"location": word(8), "version": word(9), "created": word(10)}, "detail": word(11), "count": word(0),
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn no_word_of_a_request_is_in_what_is_left_of_it(words in words()) {
        let redactor = redactor();
        let body = request(&words);
        let query = format!("filter=userName%20eq%20%22{0}%22%20or%20{1}%20pr&sortBy={2}&{3}=1&cursor={4}", words[0], words[1], words[2], words[3], words[4]);
        let left = [
            redactor.body(&body).to_string(),
            redactor.text(&body.to_string()),
            redactor.query(&query),
            redactor.url_path(&format!("/Users/{}/{}", words[5], words[6])),
            redactor.path(&format!("emails[type eq \"{}\"].{}", words[7], words[8])),
        ].map(|text| percent_decode_str(&text).decode_utf8_lossy().into_owned());
        for word in &words {
            for text in &left {
                prop_assert!(!text.contains(word.as_str()), "{} in {}", word, text);
            }
        }
        // It is the same each time, and has the same form.
        prop_assert_eq!(redactor.body(&body), redactor.body(&body));
        let lengths = |value: &Value| value.as_object().unwrap().len();
        prop_assert_eq!(lengths(&redactor.body(&body)), lengths(&body));
    }

    #[test]
    fn users_stay_equal_or_different_and_valid(names in prop::collection::vec("[a-cA-C]{1,2}@[a-c]\\.example", 2..6)) {
        let redactor = redactor();
        let stored = |name: &String| {
            let body = redactor.body(&json!({"userName": name, "active": "True", "emails": [{"value": name, "type": "work"}]}));
            let members = scim_json::object(body.to_string().as_bytes(), &mut Findings::new()).unwrap();
            new_resource(ResourceType::User, members, &mut Findings::new()).unwrap()["userName"].as_str().unwrap().to_lowercase()
        };
        let before: BTreeSet<String> = names.iter().map(|name| name.to_lowercase()).collect();
        let after: BTreeSet<String> = names.iter().map(stored).collect();
        prop_assert_eq!(before.len(), after.len());
    }
}
