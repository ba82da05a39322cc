use super::*;
use crate::model::{Kind, MappingKey};

fn item(namespace: &str, name: &str, status: RoleMappingStatus) -> Item {
    let metadata = Metadata {
        uid: None,
        name: name.to_owned(),
        namespace: Some(namespace.to_owned()),
        generation: Some(7),
        creation_timestamp: None,
    };
    Item::new(metadata, None, Status::RoleMapping(Box::new(status)))
}

#[test]
fn only_what_a_person_counts_on_is_news() {
    let cache = StatusCache::new();
    let mut scene = Scene::default();
    assert!(cache.publish(item("checkout", "team", scene.fold_at(None, ago(9)).status)));
    assert!(!cache.publish(item("checkout", "team", scene.fold_at(None, now()).status)), "times are no news");
    scene.documents[0].lag = Some(Lag { took: SignedDuration::from_secs(1), at: now() });
    assert!(!cache.publish(item("checkout", "team", scene.fold(None))), "the lag rides along");
    let key = MappingKey::new("checkout", "team").unwrap();
    assert_eq!(cache.mapping(&key).unwrap().lag.as_deref(), Some("1.0s"), "and is there to be read");
    scene.documents.pop();
    assert!(cache.publish(item("checkout", "team", scene.fold(None))), "counts are news");
}

#[test]
fn list_is_ordered_by_kind_namespace_and_name_whatever_came_first() {
    let cache = StatusCache::new();
    for (namespace, name) in [("b", "a"), ("a", "z"), ("a", "b")] {
        cache.publish(item(namespace, name, Scene::default().fold(None)));
    }
    let metadata = Metadata { name: "okta".to_owned(), ..Metadata::default() };
    cache.publish(Item::new(metadata, None, Status::IdentityProvider(Box::default())));
    let names: Vec<String> = cache
        .list()
        .items
        .iter()
        .map(|item| format!("{}/{}", item.metadata.namespace.as_deref().unwrap_or("-"), item.metadata.name))
        .collect();
    assert_eq!(names, ["-/okta", "a/b", "a/z", "b/a"]);
    assert!(cache.remove(Kind::RoleMapping, Some("a"), "z"));
    assert!(!cache.remove(Kind::RoleMapping, Some("a"), "z"));
    assert_eq!(cache.list().items.len(), 3);
}

#[test]
fn list_is_read_back_as_it_was_written() {
    let cache = StatusCache::new();
    cache.publish(item("checkout", "team", Scene::default().fold(None)));
    for status in [Status::IdentityProvider(Box::default()), Status::CloudRunTarget(Box::default())] {
        let metadata = Metadata { name: "x".to_owned(), ..Metadata::default() };
        cache.publish(Item::new(metadata, Some(serde_json::json!({"project": "shop-dev"})), status));
    }
    let value = serde_json::to_value(cache.list()).unwrap();
    assert_eq!((&value["apiVersion"], &value["kind"]), (&"v1".into(), &"List".into()));
    let first = value["items"][2].as_object().unwrap();
    assert_eq!(first.keys().collect::<Vec<_>>(), ["apiVersion", "kind", "metadata", "status"]);
    assert_eq!(first["apiVersion"], "rolecall.dev/v1alpha1");
    let back: List = serde_json::from_value(value).unwrap();
    assert_eq!(back, cache.list());
}

#[test]
fn object_without_a_status_yet_can_be_read() {
    let text = r#"{"apiVersion":"v1","kind":"List","items":[
        {"apiVersion":"rolecall.dev/v1alpha1","kind":"RoleMapping","metadata":{"name":"a","namespace":"b"}}]}"#;
    let list: List = serde_json::from_str(text).unwrap();
    let nobody_looked = RoleMappingStatus { observed_generation: Some(-1), ..RoleMappingStatus::default() };
    assert_eq!(list.items[0].status, Status::RoleMapping(Box::new(nobody_looked)));
}
