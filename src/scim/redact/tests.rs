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

/// Names and numbers that looked like something of the protocol.
const KNOWN: [&str; 8] = [
    "Alexander_Maximilian_von_Rosenberg",
    "BlablaAlexander_Maximilian_von_Rose",
    "490000000000000000000",
    "0151 2345 6789",
    "+49 151 234 567",
    "10.12.13.14",
    "1980-02-03",
    "49151123",
];

/// Words as people have them, in the places of a request where a client may put them.
fn words() -> impl Strategy<Value = Vec<String>> {
    let word = prop_oneof![
        5 => "[A-Z][a-zé]{5,9}|[0-9]{6,9}|[а-я]{5,8}|[ａ-ｚ]{5,8}|[一-龥]{3,5}",
        1 => prop::sample::select(KNOWN.map(str::to_owned).to_vec()),
        1 => "[0-9]{4} [0-9]{3,4} [0-9]{4}|[0-9]{2,3}[.][0-9]{2,3}[.][0-9]{1,3}[.][0-9]{1,3}",
    ];
    prop::collection::vec(word, 12)
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
        "status": word(1), "nextCursor": word(2), "type": word(3), "primary": word(4),
    })
}

#[test]
fn numbers_and_dates_of_people_do_not_stay_and_those_of_the_protocol_do() {
    let redactor = redactor();
    let number = |text: &str, name: &str| {
        redactor.body(&serde_json::from_str(&format!("{{\"{name}\": {text}}}")).unwrap())[name].to_string()
    };
    for text in ["490000000000000000000", "4915112345678901234567", "49151123456", "-1.5", "4915112.25", "7"] {
        let given = serde_json::from_str::<Value>(text).unwrap().to_string();
        for name in ["userName", "count", "active", "version", "status"] {
            let same = (name == "count" || name == "status") && text == "7";
            assert_ne!(number(text, "userName"), given);
            assert_eq!(number(text, name) == given, same, "{name} {text} {}", number(text, name));
        }
        let (shown, exponent) = (number(text, "userName"), given.find('e'));
        assert!(exponent.is_none_or(|at| !shown.starts_with(&given[..at])), "{shown}");
    }
    // A number that leads back to itself before it has no leading zero.
    for key in 0..=255 {
        let redactor = Redactor::new(&[key; KEY_BYTES], "https://scim.example.com/", &"okta".parse().unwrap());
        for number in 10..100 {
            assert_ne!(redactor.body(&json!(number)), json!(number), "{key}");
        }
    }
    let body = redactor.body(&json!({
        "status": "201", "version": "W/\"17\"", "active": "1", "startIndex": 100_001, "nextCursor": "AQAAAAAAAAAHAAAAAGoc2QBwdZ8eBR1DgA",
        "emails": [{"type": "4915", "primary": "0151"}], "phone": "AQAAAAAAAAAHAAAAAGoc2QBwdZ8eBR1DgA", "status2": {"status": "1511"},
    }));
    assert_eq!((&body["status"], &body["version"]), (&json!("201"), &json!("W/\"17\"")));
    assert_eq!((&body["active"], &body["startIndex"]), (&json!("1"), &json!(100_001)));
    assert_eq!(body["nextCursor"], "AQAAAAAAAAAHAAAAAGoc2QBwdZ8eBR1DgA");
    let shown = body.to_string();
    for text in ["4915", "0151", "1511"] {
        assert!(!shown.contains(text), "{shown}");
    }
    assert_eq!(shown.matches("AQAAAAAAAAAHAAAAAGoc2QBwdZ8eBR1DgA").count(), 1, "{shown}");
    for header in [
        "Okta SCIM Client 1.0.0",
        "python-requests/2.31.0",
        "Apache-HttpClient/4.5.13 (Java/17.0.9)",
        "application/scim+json; charset=utf-8",
        "application/json;q=0.9, text/html",
        "W/\"17\", W/\"3\"",
        "*",
    ] {
        assert_eq!(redactor.header(header), header);
    }
    for (header, gone) in [
        ("Okta SCIM Client 10.12.13.14", "10.12"),
        ("okta/0151 2345", "0151"),
        ("Agent 151.23.4", "151"),
        ("Rosenberg/1.2.3", "1.2.3"),
        ("W/\"4915112345\"", "4915"),
        ("x/1.2", "1.2"),
        ("okta 49 15 11", "15"),
    ] {
        assert!(!redactor.header(header).contains(gone), "{header} {}", redactor.header(header));
    }
}

#[test]
fn work_grows_with_the_length_of_a_body_a_query_and_a_certificate() {
    let hashed = |work: &dyn Fn(&Redactor, usize)| {
        let of = |length: usize| {
            let redactor = redactor();
            work(&redactor, length);
            redactor.words.hashed.load(std::sync::atomic::Ordering::Relaxed)
        };
        let (half, whole) = (of(32 * 1024), of(64 * 1024));
        assert!(whole > 0 && whole <= 2 * half + 4096, "{half} {whole}");
        assert!(whole < 64 * 1024 * 200, "{whole}");
    };
    hashed(&|redactor, length| drop(redactor.body(&json!("q".repeat(length)))));
    hashed(&|redactor, length| drop(redactor.body(&json!({"userName": "a ".repeat(length / 2)}))));
    hashed(&|redactor, length| drop(redactor.body(&json!({"userName": "bulkId:".repeat(length / 7)}))));
    hashed(&|redactor, length| drop(redactor.text(&"q".repeat(length))));
    hashed(&|redactor, length| drop(redactor.query(&format!("filter={}", "q".repeat(length)))));
    let certificate = |length: usize| STANDARD.encode(vec![7_u8; length / 4 * 3]);
    hashed(&|redactor, length| drop(redactor.body(&json!({"x509Certificates": [{"value": certificate(length)}]}))));
}

#[test]
fn json_inside_of_json_inside_of_json_is_text() {
    let mut text = "\"Rosenberg\"".to_owned();
    for _ in 0..8 {
        text = json!(format!("{}{text}{}", "[".repeat(100), "]".repeat(100))).to_string();
    }
    let redacted = redactor().body(&serde_json::from_str(&text).unwrap()).to_string();
    assert!(!redacted.contains("Rosenberg"), "{redacted}");
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
            redactor.header(&format!("{}/1.0 ({}) Okta SCIM Client 1.0.0 {} W/\"{}\"; q={}", words[0], words[9], words[10], words[11], words[1])),
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
