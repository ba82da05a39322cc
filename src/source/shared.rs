//! Shares one watch among all consumers of its kind. A new subscriber first receives the current state.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::ResourceEvent;
use crate::api::manifest::ObjectRef;
use crate::model::Kind;

/// Largest number of waiting events of one subscriber. Beyond that, it receives the then current state instead.
const QUEUE: usize = 1024;
/// Delay before delivery to a subscriber with a full queue is retried.
const AGAIN: Duration = Duration::from_millis(100);

/// Subscription handle of one watch.
#[derive(Clone)]
pub(crate) struct SharedWatch(mpsc::Sender<mpsc::Sender<ResourceEvent>>);

impl SharedWatch {
    /// Shares `events` of one kind until `stop` is canceled or they end. A slow subscriber does not delay the others.
    #[must_use]
    pub(crate) fn start(
        kind: Kind,
        events: mpsc::Receiver<ResourceEvent>,
        stop: CancellationToken,
    ) -> (Self, JoinHandle<()>) {
        let (subscribe, subscriptions) = mpsc::channel(4);
        (Self(subscribe), tokio::spawn(share(Current::new(kind), events, subscriptions, stop)))
    }

    /// Subscribes `to` to the events: first the current state, then all changes.
    pub(crate) async fn subscribe(&self, to: mpsc::Sender<ResourceEvent>) {
        // When the watch has ended, `to` is dropped, which its receiver notices.
        let _ = self.0.send(to).await;
    }
}

async fn share(
    mut current: Current,
    mut events: mpsc::Receiver<ResourceEvent>,
    mut subscriptions: mpsc::Receiver<mpsc::Sender<ResourceEvent>>,
    stop: CancellationToken,
) {
    let mut subscribers: Vec<Subscriber> = Vec::new();
    loop {
        let waits = subscribers.iter().any(|subscriber| !subscriber.queue.is_empty());
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            Some(to) = subscriptions.recv() => subscribers.push(Subscriber { to, queue: current.events().collect() }),
            event = events.recv() => {
                let Some(event) = event else { return };
                current.take(&event);
                for subscriber in &mut subscribers {
                    subscriber.push(&event, &current);
                }
            }
            () = tokio::time::sleep(AGAIN), if waits => {}
        }
        subscribers.retain_mut(Subscriber::deliver);
    }
}

struct Subscriber {
    to: mpsc::Sender<ResourceEvent>,
    queue: VecDeque<ResourceEvent>,
}

impl Subscriber {
    fn push(&mut self, event: &ResourceEvent, current: &Current) {
        if self.queue.len() < QUEUE {
            self.queue.push_back(event.clone());
        } else {
            self.queue = current.events().collect();
        }
    }

    /// Sends as many events as fit. Returns whether the subscriber still listens.
    fn deliver(&mut self) -> bool {
        while !self.queue.is_empty() {
            match self.to.try_reserve() {
                Ok(permit) => {
                    if let Some(event) = self.queue.pop_front() {
                        permit.send(event);
                    }
                }
                Err(mpsc::error::TrySendError::Full(())) => return true,
                Err(mpsc::error::TrySendError::Closed(())) => return false,
            }
        }
        !self.to.is_closed()
    }
}

/// The current state according to the watch.
struct Current {
    kind: Kind,
    objects: BTreeMap<ObjectRef, ResourceEvent>,
    listed: bool,
}

impl Current {
    fn new(kind: Kind) -> Self {
        Self { kind, objects: BTreeMap::new(), listed: false }
    }

    fn take(&mut self, event: &ResourceEvent) {
        match event {
            ResourceEvent::Applied { observed, .. }
            | ResourceEvent::Rejected { observed, .. }
            | ResourceEvent::DeletionRequested { observed, .. } => {
                self.objects.insert(observed.object.clone(), event.clone());
            }
            ResourceEvent::Restated(newer) => {
                if let Some(
                    ResourceEvent::Applied { observed, .. }
                    | ResourceEvent::Rejected { observed, .. }
                    | ResourceEvent::DeletionRequested { observed, .. },
                ) = self.objects.get_mut(&newer.object)
                {
                    observed.metadata.clone_from(&newer.metadata);
                    observed.status.clone_from(&newer.status);
                }
            }
            ResourceEvent::Absent { object, .. } => drop(self.objects.remove(object)),
            ResourceEvent::Listed { objects, .. } => {
                self.objects.retain(|object, _| objects.contains(object));
                self.listed = true;
            }
            ResourceEvent::Recovered(_)
            | ResourceEvent::ProblemCleared(_)
            | ResourceEvent::NamespaceLabels { .. }
            | ResourceEvent::Failing { .. }
            | ResourceEvent::Suspicious(_)
            | ResourceEvent::Loaded => {}
        }
    }

    /// The events that give a new subscriber the current state.
    fn events(&self) -> impl Iterator<Item = ResourceEvent> {
        let listed = ResourceEvent::Listed { kind: self.kind, objects: self.objects.keys().cloned().collect() };
        self.objects.values().cloned().chain(self.listed.then_some(listed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::manifest::Problem;
    use crate::source::{Absence, Observed};

    fn object(name: &str) -> ObjectRef {
        ObjectRef::new(Kind::IdentityProvider, None, name)
    }

    fn there(name: &str) -> ResourceEvent {
        let problems = vec![Problem::of_file(name, "InvalidManifest", "no".to_owned())];
        ResourceEvent::Rejected { observed: Box::new(Observed::in_file(object(name), "cluster")), problems }
    }

    fn listed(names: &[&str]) -> ResourceEvent {
        let objects = names.iter().map(|name| object(name)).collect();
        ResourceEvent::Listed { kind: Kind::IdentityProvider, objects }
    }

    fn restated(name: &str, version: &str) -> ResourceEvent {
        let mut observed = Observed::in_file(object(name), "cluster");
        observed.metadata.resource_version = Some(version.to_owned());
        ResourceEvent::Restated(Box::new(observed))
    }

    fn word(event: &ResourceEvent) -> String {
        match event {
            ResourceEvent::Rejected { observed, .. } => {
                format!("{}{}", observed.object.name, observed.metadata.resource_version.as_deref().unwrap_or_default())
            }
            ResourceEvent::Absent { object, .. } => format!("-{}", object.name),
            ResourceEvent::Listed { objects, .. } => format!("listed {}", objects.len()),
            ResourceEvent::Restated(observed) => format!("={}", observed.object.name),
            other => panic!("{other:?}"),
        }
    }

    async fn heard(from: &mut mpsc::Receiver<ResourceEvent>, n: usize) -> Vec<String> {
        let mut words = Vec::new();
        while words.len() < n {
            words.push(word(&from.recv().await.unwrap()));
        }
        words
    }

    #[tokio::test]
    async fn whoever_subscribes_later_is_told_what_is_there_and_then_hears_the_same() {
        let (sender, events) = mpsc::channel(64);
        let (shared, task) = SharedWatch::start(Kind::IdentityProvider, events, CancellationToken::new());
        let (to, mut early) = mpsc::channel(64);
        shared.subscribe(to).await;
        for event in [there("a"), there("b"), there("c"), listed(&["a", "b", "c"]), restated("a", "7")] {
            sender.send(event).await.unwrap();
        }
        sender.send(ResourceEvent::Absent { object: object("c"), why: Absence::NotObserved }).await.unwrap();
        assert_eq!(heard(&mut early, 6).await, ["a", "b", "c", "listed 3", "=a", "-c"]);
        let (to, mut late) = mpsc::channel(64);
        shared.subscribe(to).await;
        assert_eq!(heard(&mut late, 3).await, ["a7", "b", "listed 2"]);
        sender.send(there("d")).await.unwrap();
        assert_eq!(
            (heard(&mut early, 1).await, heard(&mut late, 1).await),
            (vec!["d".to_owned()], vec!["d".to_owned()])
        );
        drop(sender);
        task.await.unwrap();
        assert!(early.recv().await.is_none() && late.recv().await.is_none(), "the end of the watch is heard");
    }

    #[tokio::test]
    async fn subscriber_that_takes_nothing_keeps_nobody_waiting_and_is_told_in_the_end_what_is_there() {
        let (sender, events) = mpsc::channel(1);
        let (shared, _task) = SharedWatch::start(Kind::IdentityProvider, events, CancellationToken::new());
        let ((to, mut slow), (too, mut quick)) = (mpsc::channel(1), mpsc::channel(8));
        shared.subscribe(to).await;
        shared.subscribe(too).await;
        let many = QUEUE + 10;
        for _ in 0..many {
            sender.send(there("a")).await.unwrap();
            assert_eq!(heard(&mut quick, 1).await, ["a"]);
        }
        sender.send(there("b")).await.unwrap();
        sender.send(listed(&["b"])).await.unwrap();
        assert_eq!(heard(&mut quick, 2).await, ["b", "listed 1"]);
        let mut last = String::new();
        let mut events = 0;
        while last != "listed 1" {
            last = heard(&mut slow, 1).await.remove(0);
            events += 1;
        }
        assert!(events < many, "{events} of {many}");
    }
}
