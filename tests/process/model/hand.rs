//! What people do on the disks, behind everybody's back, while the installation is at rest.

use std::{
    fs::{self, File},
    os::unix::fs::FileExt as _,
};

use lockstep_tests::harness::content;

use super::Round;

impl Round<'_> {
    /// A few changes by hand.
    pub(super) fn by_hand(&mut self) {
        for _ in 0..self.chance.below(4) {
            let servers = self.servers();
            let server = servers[self.chance.below(servers.len())].clone();
            match self.chance.below(6) {
                0 => self.drift(&server),
                1 => self.lose(&server),
                2 => self.rot(&server),
                _ => self.plant(&server),
            }
        }
    }

    /// Puts a loose file at a free path, or in the place of a directory.
    fn plant(&mut self, server: &str) {
        let Some(mut path) = self.planner.free_path(self.world, server) else { return };
        if self.chance.once_in(4) {
            path = path.split('/').next().expect("a component").to_owned();
        }
        let place = self.installation.transfer(server).join(&path);
        if !place.exists() && place.parent().is_some_and(|parent| fs::create_dir_all(parent).is_ok()) {
            self.plant_at(server, path);
        }
    }

    /// Puts a loose file there.
    pub(super) fn plant_at(&mut self, server: &str, path: String) {
        let place = self.installation.transfer(server).join(&path);
        fs::create_dir_all(place.parent().expect("below a directory")).expect("made");
        let bytes = self.bytes();
        fs::write(&place, &bytes).expect("written");
        eprintln!("  by hand: {path} is put on {server}");
        self.world.disks.get_mut(server).expect("a server").loose.insert(path, digest(&bytes));
    }

    /// Writes over a copy.
    fn drift(&mut self, server: &str) {
        let Some(path) = self.planner.sound(self.world, &self.touched) else { return };
        let bytes = self.bytes();
        fs::write(self.installation.transfer(server).join(&path), &bytes).expect("written");
        eprintln!("  by hand: {path} is changed on {server}");
        self.world.disks.get_mut(server).expect("a server").drifted.insert(path.clone(), digest(&bytes));
        self.touched.insert(path);
    }

    /// Removes a copy.
    fn lose(&mut self, server: &str) {
        let Some(path) = self.planner.sound(self.world, &self.touched) else { return };
        let place = self.installation.transfer(server).join(&path);
        eprintln!("  by hand: {path} is removed from {server}");
        fs::remove_file(place).expect("removed");
        self.touched.insert(path);
    }

    /// Flips a byte as a disk does: the times do not show it.
    fn rot(&mut self, server: &str) {
        let Some(path) = self.planner.sound(self.world, &self.touched) else { return };
        let place = self.installation.transfer(server).join(&path);
        let mut bytes = fs::read(&place).expect("read");
        let modified = fs::metadata(&place).and_then(|found| found.modified()).expect("there");
        bytes[0] ^= 1;
        let file = File::options().write(true).open(&place).expect("opened");
        file.write_all_at(&bytes[..1], 0).expect("written");
        file.set_modified(modified).expect("set");
        eprintln!("  by hand: {path} rots on {server}");
        self.world.disks.get_mut(server).expect("a server").spoilt.insert(digest(&bytes));
        self.touched.insert(path);
    }

    fn bytes(&mut self) -> Vec<u8> {
        content(&format!("by hand {}", self.planner.fresh()), 1_000 + self.chance.below(5_000))
    }
}

fn digest(bytes: &[u8]) -> String {
    blake3::hash(bytes).to_hex().to_string()
}
