//! Who works on what: every instance watches the notes of all updates that need work, and takes over where nobody moves.

use std::collections::BTreeSet;

use lockstep_model::FirmwareId;
use lockstep_registry::Registry as _;

use super::{Engine, follow::Follow, records::Update};
use crate::{
    domain::{
        error::CatalogError,
        life::is_working,
        note::{DOWNLOAD, DownloadNote, download_key},
        vigil::Vigil,
    },
    ports::Ports,
};

impl<P: Ports> Engine<P> {
    /// Watches until the process drains.
    pub(super) async fn keep(self) {
        let drain = self.inner.drain.clone();
        tokio::select! {
            biased;
            () = drain.started() => {}
            () = self.watch_over() => {}
        }
    }

    async fn watch_over(&self) {
        let (mut follow, mut vigil) = (Follow::default(), Vigil::default());
        let mut needy = BTreeSet::new();
        loop {
            if let Err(error) = self.look(&mut follow, &mut vigil, &mut needy).await {
                tracing::debug!(%error, "downloads cannot be watched over");
                follow.doubt();
                // Who cannot read notes has heard nothing of anybody, and takes over from nobody.
                vigil = Vigil::default();
            }
            tokio::select! {
                biased;
                () = self.inner.keep_now.notified() => {}
                () = follow.wait(self.registry()) => {}
            }
        }
    }

    async fn look(
        &self,
        follow: &mut Follow,
        vigil: &mut Vigil,
        needy: &mut BTreeSet<FirmwareId>,
    ) -> Result<(), CatalogError> {
        if follow.changed(self.registry()).await? {
            let all = self.all().await?;
            *needy = all.iter().filter(|u| is_working(u.record.state)).map(|update| update.id).collect();
            vigil.retain(needy);
            self.drop_left_over(&all).await?;
        }
        if needy.is_empty() {
            return Ok(());
        }
        let notes = self.registry().notes(DOWNLOAD.to_owned()).await?;
        for id in needy.iter() {
            let key = download_key(*id);
            let note = notes.iter().find(|note| note.key == key);
            let note: Option<DownloadNote> = note.and_then(|note| serde_json::from_str(&note.body).ok());
            let silence = vigil.silence(*id, note.as_ref(), self.now());
            let is_own = self.working().contains_key(id);
            if !is_own && silence >= self.inner.choices.takeover_after {
                tracing::info!(firmware_id = %id, silence_seconds = silence.as_secs(), "taking over a firmware update");
                self.work_on(*id);
            }
        }
        Ok(())
    }

    /// Notes whose update is gone: whoever ended it died before it took them away.
    async fn drop_left_over(&self, all: &[Update]) -> Result<(), CatalogError> {
        let live: BTreeSet<String> = all.iter().map(|update| download_key(update.id)).collect();
        for note in self.registry().notes(DOWNLOAD.to_owned()).await? {
            if !live.contains(&note.key) {
                self.registry().drop_note(note.key).await?;
            }
        }
        Ok(())
    }
}
