//! The engine over a registry in memory, a vendor and servers that do what a test says.

mod changes;
mod downloads;
mod fakes;
mod fenced;

use std::time::Duration;

use lockstep_chassis::{Drain, SealKey};
use lockstep_model::{
    Epoch, FirmwareId,
    clock::{Entropy as _, SystemEntropy},
    firmware::{FirmwareState, Protocol},
    record::{ServerRecord, server_key},
};
use lockstep_registry::{Commit, MemoryRegistry, Registry as _};

use self::fakes::{FakeServers, FakeVendor, Numbered, SOURCE, Still, until};
use super::{Ask, Choices, Engine, Outside, Start, Update};
use crate::{
    Parts,
    domain::{draft::Wish, error::CatalogError},
};

/// The ports of these tests.
type Fake = Parts<MemoryRegistry, FakeVendor, FakeServers, Still, Numbered>;

/// Everything that all instances share.
#[derive(Clone, Debug)]
struct World {
    registry: MemoryRegistry,
    vendor: FakeVendor,
    servers: FakeServers,
}

/// One instance.
struct Instance {
    engine: Engine<Fake>,
    drain: Drain,
}

impl World {
    /// Two servers that take part, and one that is too old.
    async fn new() -> Self {
        let registry = MemoryRegistry::new(Epoch(SystemEntropy.uuid()));
        let server = |id: &str, version: &str| {
            let record = ServerRecord {
                mode: "distributed".parse().expect("a mode"),
                version: version.parse().expect("a version"),
                filesync: format!("https://{id}:1"),
                timeguard: String::new(),
                store_id: "00000000-0000-0000-0000-000000000001".parse().expect("an id"),
            };
            (server_key(&id.parse().expect("an id")), serde_json::to_string(&record).expect("JSON"))
        };
        let puts = vec![server("s1", "12.04.100"), server("s2", "12.04.100"), server("old", "6.01.100")];
        registry.commit(Commit { puts, ..Commit::default() }).await.expect("commits");
        let servers = FakeServers::new(registry.clone());
        Self { registry, vendor: FakeVendor::default(), servers }
    }

    /// One more instance; the lower the number, the earlier it goes before others.
    fn instance(&self, number: u8) -> Instance {
        let outside = Outside::<Fake> {
            registry: self.registry.clone(),
            vendor: self.vendor.clone(),
            servers: self.servers.clone(),
            clock: Still,
            entropy: Numbered(number),
        };
        let key = SealKey::parse(&"ab".repeat(32));
        let choices = Choices { key, takeover_after: Duration::from_secs(30) };
        let drain = Drain::new();
        let engine = Engine::new(outside, choices, drain.clone());
        engine.run();
        Instance { engine, drain }
    }
}

fn ask(request_id: &str) -> Ask {
    Ask::new("operator/local".into(), request_id.parse().expect("an id"))
}

fn start(offer_id: &str, target: &str) -> Start {
    let target = (!target.is_empty()).then(|| target.parse().expect("a path"));
    Start {
        source_id: SOURCE.into(),
        offer_id: offer_id.into(),
        wish: Wish { server_id: "s1".parse().expect("an id"), target, protocol: Protocol::HttpsWebdav },
    }
}

impl Instance {
    async fn get(&self, id: FirmwareId) -> Update {
        self.engine.shown(id).await.expect("it is there").update
    }

    /// Waits until an update is in a state.
    async fn reaches(&self, id: FirmwareId, state: FirmwareState) -> Update {
        until(&format!("{state:?}"), Duration::from_secs(120), async || {
            self.engine.shown(id).await.is_ok_and(|shown| shown.update.record.state == state)
        })
        .await;
        self.get(id).await
    }

    async fn is_gone(&self, id: FirmwareId) -> bool {
        matches!(self.engine.shown(id).await, Err(CatalogError::NotFound { .. }))
    }

    /// Ends as if it were killed, as far as others can tell.
    async fn ends(self) {
        self.drain.begin();
        self.drain.finished().await;
        assert!(!self.drain.failed(), "an instance panicked");
    }
}
