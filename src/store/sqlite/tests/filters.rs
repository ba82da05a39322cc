//! The answer of indexes and reads to a filter equals the filter on all resources.

use proptest::prelude::*;
use serde_json::{Map, Value};

use super::*;
use crate::scim::schema::ENTERPRISE_URN;
use crate::scim::{self, Evaluator, Findings, ServerAttributes, Work, complete};
use crate::store::contract::{matching, new_group, users_with};

const VALUES: [&str; 5] = ["a", "B", "ab", "é", "2026-06-01T00:00:00Z"];

fn leaf() -> impl Strategy<Value = String> {
    let names = [
        "userName",
        "title",
        "displayName",
        "externalId",
        "emails",
        "emails.type",
        "name.givenName",
        "nickName",
        "employeeNumber",
    ];
    let ops = ["eq", "eq", "eq", "ne", "co", "sw", "ew", "gt", "ge", "lt", "le"];
    let select = prop::sample::select::<&'static str>;
    let compare = (select(names.to_vec()), select(ops.to_vec()), select(VALUES.to_vec()))
        .prop_map(|(name, op, value)| format!("{name} {op} \"{value}\""));
    let present = select(names.to_vec()).prop_map(|name| format!("{name} pr"));
    let element = (select(vec!["a", "b", "work"]), select(ops.to_vec()), select(VALUES.to_vec()))
        .prop_map(|(kind, op, value)| format!("emails[type eq \"{kind}\" and value {op} \"{value}\"]"));
    let then = (select(vec!["work", ""]), select(VALUES.to_vec()))
        .prop_map(|(kind, value)| format!("emails[type eq \"{kind}\"].value eq \"{value}\""));
    let time = select(vec!["eq", "ne", "gt", "ge", "lt", "le"])
        .prop_map(|op| format!("meta.lastModified {op} \"1970-01-01T00:00:03Z\""));
    let active = any::<bool>().prop_map(|active| format!("active eq {active}"));
    prop_oneof![4 => compare, 1 => present, 1 => element, 1 => then, 1 => time, 1 => active]
}

fn filters() -> impl Strategy<Value = String> {
    leaf().prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 2..4).prop_map(|terms| format!("({})", terms.join(" and "))),
            prop::collection::vec(inner.clone(), 2..4).prop_map(|terms| format!("({})", terms.join(" or "))),
            inner.prop_map(|term| format!("not ({term})")),
        ]
    })
}

fn people() -> impl Strategy<Value = Vec<Value>> {
    let text = || prop::option::of(prop::sample::select(VALUES.to_vec()));
    let email =
        (prop::sample::select(VALUES.to_vec()), prop::option::of(prop::sample::select(vec!["a", "work", "Work"])))
            .prop_map(|(value, kind)| json!({"value": value, "type": kind}));
    let person = (text(), text(), text(), prop::collection::vec(email, 0..3), any::<bool>());
    prop::collection::vec(person, 1..7).prop_map(|people| {
        let mut all = Vec::new();
        for (index, (title, display, given, emails, active)) in people.into_iter().enumerate() {
            let name = VALUES.get(index).map_or_else(|| format!("u{index}"), |name| (*name).to_owned());
            all.push(json!({
                "userName": name, "title": title, "displayName": display, "name": {"givenName": given},
                "emails": emails, "active": active, "externalId": format!("{name}{index}"),
                ENTERPRISE_URN: {"employeeNumber": title},
            }));
        }
        all
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]

    #[test]
    fn what_indexes_and_reads_answer_is_what_the_filter_says_of_all_values(people in people(), texts in prop::collection::vec(filters(), 1..12)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let clock = Arc::new(ManualClock::new(Timestamp::UNIX_EPOCH));
            let database = crate::store::MemoryDatabase::new(1).unwrap();
            let store = Store::open_inline(&database, clock.clone()).unwrap();
            let mut stored = Vec::new();
            for body in people {
                clock.advance(std::time::Duration::from_secs(1));
                let Value::Object(body) = body else { unreachable!() };
                let resource = scim::new_resource(ResourceType::User, body, &mut Findings::new()).unwrap();
                let id = UserId(Uuid::new_v4());
                let facts = scim::user_facts(id, &resource, true);
                stored.push(store.create_user(&okta(), &origin(), NewUser { resource, facts }).await.unwrap());
            }
            for text in texts {
                let filter = filter(ResourceType::User, &text);
                let evaluator = Evaluator::new(ResourceType::User, &filter).unwrap();
                let passes = |user: &&UserRecord| {
                    let id = user.facts.id.to_string();
                    let server = ServerAttributes { id: &id, version: user.version, created: user.created_at, modified: user.updated_at };
                    let resource: Map<String, Value> = complete(&user.resource, ResourceType::User, "", server);
                    evaluator.passes(&resource, &mut Work::default()).unwrap()
                };
                let expected: Vec<UserId> = stored.iter().filter(passes).map(|user| user.facts.id).collect();
                let page = store.users(&okta(), &matching(filter)).await.unwrap();
                let found: Vec<UserId> = page.items.iter().map(|user| user.facts.id).collect();
                assert_eq!((page.total, found), (expected.len() as u64, expected), "{text}");
            }
        });
    }
}

/// Stores 50,000 users.
const FILL: &str = "WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < 50000) \
    INSERT INTO users (provider, id, active, user_name, user_name_fold, emails, resource, version, created_at, updated_at) \
    SELECT 'okta', randomblob(16), 1, 'u' || n, 'u' || n, '[]', '{\"userName\":\"u' || n || '\"}', 1, n, n FROM n";

#[tokio::test]
async fn a_list_that_would_read_too_much_is_refused_and_never_answered_in_part() {
    let (_files, home) = on_files().await;
    home.store.tamper(FILL).await;
    let found = home.store.users(&okta(), &users_with("userName ew \"9999\"")).await.unwrap();
    assert_eq!(found.total, 5);
    add_user(&home.store, &okta(), "a@x.example").await;
    for text in ["userName ew \"9999\"", "title pr", "userName eq \"u1\" or title pr"] {
        let refused = home.store.users(&okta(), &users_with(text)).await;
        assert_eq!(refused, Err(StoreError::ListTooLarge { limit: 50_000 }), "{text}");
    }
    // What an index narrows is answered, however large the directory is.
    let narrowed =
        users_with("userName eq \"u1\" and not (title pr) or userName eq \"A@x.example\" and active eq true");
    assert_eq!(home.store.users(&okta(), &narrowed).await.unwrap().total, 1 + 1);
}

/// Names that are equal only since the tenth step, in two users and two groups each.
const OLD_NAMES: &str = "
    INSERT INTO users (provider, id, active, user_name, user_name_fold, emails, resource, version, created_at, updated_at) VALUES
        ('okta', x'00000000000040008000000000000001', 1, 'ａ@x', 'ａ@x', '[]', '{\"userName\":\"ａ@x\"}', 1, 0, 0),
        ('okta', x'00000000000040008000000000000002', 1, 'Ａ＠x', 'ａ＠x', '[]', '{\"userName\":\"Ａ＠x\"}', 1, 0, 0),
        ('entra', x'00000000000040008000000000000003', 1, 'a@x', 'a@x', '[]', '{\"userName\":\"a@x\"}', 1, 0, 0);
    INSERT INTO groups (provider, id, display_name, display_name_fold, resource, member_count, version, created_at, updated_at) VALUES
        ('okta', x'00000000000040008000000000000011', 'Cafe\u{301}', 'cafe\u{301}', '{\"displayName\":\"Cafe\u{301}\"}', 0, 1, 0, 0),
        ('okta', x'00000000000040008000000000000012', 'CAFÉ', 'café', '{\"displayName\":\"CAFÉ\"}', 0, 1, 0, 0);";

#[tokio::test]
async fn names_of_an_older_database_are_folded_again_and_nobody_is_lost() {
    let folder = tempfile::tempdir().unwrap();
    testing::first_version(&folder.path().join("rolecall.db").display().to_string(), |db| db.execute_batch(OLD_NAMES));
    let clock = Arc::new(ManualClock::new("2027-02-01T08:00:00Z".parse().unwrap()));
    let store = open(folder.path(), clock).await;
    let id = |number: u128| Uuid::from_u128(0x4000_8000_0000_0000_0000 + number);
    for text in ["a@x", "Ａ@x", "ａ＠ｘ"] {
        let page = store.users(&okta(), &users_with(&format!("userName eq \"{text}\""))).await.unwrap();
        assert_eq!(page.items.iter().map(|user| user.facts.id.0).collect::<Vec<_>>(), [id(1)], "{text}");
    }
    // The later ones are there under their ids, and can be changed as long as they are not renamed to a taken name.
    let second = UserId(id(2));
    let change = |user: &UserRecord| {
        let mut facts = user.facts.clone();
        facts.active = false;
        Ok::<_, ()>(Some(UserUpdate { resource: user.resource.clone(), facts }))
    };
    assert!(matches!(store.update_user(&okta(), &origin(), second, change).await, Ok(UpdateOutcome::Changed(_))));
    for number in [0x11, 0x12] {
        let change = |group: &GroupRecord| {
            let mut facts = group.facts.clone();
            facts.external_id = Some(format!("e{number}"));
            Ok::<_, ()>(GroupUpdate { facts: Some(facts), ..GroupUpdate::default() })
        };
        let changed = store.update_group(&okta(), &origin(), GroupId(id(number)), change).await;
        assert!(matches!(changed, Ok(UpdateOutcome::Changed(_))), "{changed:?}");
    }
    let taken = store.create_group(&okta(), &origin(), new_group("cafe\u{301}", &[])).await;
    assert_eq!(taken.unwrap_err(), StoreError::Taken { attribute: "displayName" });
}

/// Users of an older database, whose employee numbers are in their resources only.
const OLD_NUMBERS: &str = r#"
    INSERT INTO users (provider, id, active, user_name, user_name_fold, emails, resource, version, created_at, updated_at) VALUES
        ('okta', x'00000000000040008000000000000001', 1, 'a', 'a', '[]',
            '{"userName":"a","urn:ietf:params:scim:schemas:extension:enterprise:2.0:User":{"employeeNumber":"E-Ä7"}}', 1, 0, 0),
        ('okta', x'00000000000040008000000000000002', 1, 'b', 'b', '[]', '{"userName":"b","title":"employeeNumber"}', 1, 0, 0);"#;

#[tokio::test]
async fn employee_numbers_are_looked_up_by_an_index_also_in_an_older_database() {
    let folder = tempfile::tempdir().unwrap();
    testing::first_version(&folder.path().join("rolecall.db").display().to_string(), |db| {
        db.execute_batch(OLD_NUMBERS)
    });
    let clock = Arc::new(ManualClock::new("2027-02-01T08:00:00Z".parse().unwrap()));
    let store = open(folder.path(), clock).await;
    let found = async |number: &str| {
        let page = store.users(&okta(), &users_with(&format!("employeeNumber eq \"{number}\""))).await.unwrap();
        page.items.iter().map(|user| user.facts.user_name.clone()).collect::<Vec<_>>()
    };
    assert_eq!(found("e-ä7").await, ["a"]);
    let number = |number: &str| json!({"userName": "b", ENTERPRISE_URN: {"employeeNumber": number}});
    let second = UserId(Uuid::from_u128(0x4000_8000_0000_0000_0002));
    for next in ["7", "8"] {
        let change =
            |user: &UserRecord| Ok::<_, ()>(Some(UserUpdate { resource: number(next), facts: user.facts.clone() }));
        assert!(matches!(store.update_user(&okta(), &origin(), second, change).await, Ok(UpdateOutcome::Changed(_))));
        assert_eq!(found(next).await, ["b"]);
    }
    assert_eq!(found("7").await, Vec::<String>::new());
    // Beyond what a list without an index may read.
    store.tamper(FILL).await;
    assert_eq!(found("8").await, ["b"]);
}
