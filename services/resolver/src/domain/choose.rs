//! Which of the servers that hold something a device is sent to (R47, R48, R50). The first that differs decides:
//!
//! 1. a fenced server comes after all others (decision 2)
//! 2. the current server comes first
//! 3. then the servers of the site of the device
//! 4. then the one with less load, in coarse steps
//! 5. then the device itself: each device has an order of its own over all servers, which stays when servers come and go
//!
//! Who does not hold every byte is not even asked about.

use std::cmp::Ordering;

use lockstep_model::ServerId;

use crate::domain::{device::DeviceId, load::Load};

/// Who asks.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// The server that the device talks to.
    pub current: &'a ServerId,
    /// The device.
    pub device: &'a DeviceId,
    /// Its site; empty for none.
    pub site: &'a str,
}

/// A server that holds every byte.
#[derive(Clone, Copy, Debug)]
pub struct Offer<'a> {
    /// The server.
    pub id: &'a ServerId,
    /// Where it stands; may be empty.
    pub site: &'a str,
    /// How busy it is.
    pub load: Load,
    /// Its [`mark`].
    pub mark: u64,
    /// Whether the time guard bars it.
    pub is_fenced: bool,
}

/// What decides between two servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Criterion {
    /// One is fenced.
    Fence,
    /// One is the current server.
    Current,
    /// One is of the site of the device.
    Site,
    /// One has less load.
    Load,
    /// The order of the device.
    Device,
}

/// All but the order of the device.
type Cheap = (bool, bool, bool, Load);

fn cheap(asked: &Asked<'_>, offer: &Offer<'_>) -> Cheap {
    (offer.is_fenced, offer.id != asked.current, !is_near(asked, offer), offer.load)
}

fn is_near(asked: &Asked<'_>, offer: &Offer<'_>) -> bool {
    !asked.site.is_empty() && asked.site == offer.site
}

/// The beginning of the hash of a name. That of a server is kept with it: to hash the names of 200 servers for one answer would
/// cost more than all the rest of it.
pub fn mark(name: &str) -> u64 {
    let hash = blake3::hash(name.as_bytes());
    hash.as_bytes().iter().take(8).fold(0, |value, byte| value << 8 | u64::from(*byte))
}

/// The place of a server in the order of a device, both by their marks: rendezvous hashing, the highest first. The two are
/// mixed until each bit depends on all of them (the end of SplitMix64).
const fn weight(device: u64, server: u64) -> u64 {
    let mut mixed = device ^ server;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// The server that the device is sent to; `None` without offers.
pub fn best<'a>(asked: &Asked<'_>, offers: impl Iterator<Item = Offer<'a>>) -> Option<Offer<'a>> {
    let device = mark(asked.device.as_str());
    offers.min_by(|a, b| order(asked, device, a, b))
}

/// All offers, in the order in which they would be made.
pub fn ranked<'a>(asked: &Asked<'_>, offers: impl Iterator<Item = Offer<'a>>) -> Vec<Offer<'a>> {
    let device = mark(asked.device.as_str());
    let mut offers: Vec<Offer<'a>> = offers.collect();
    offers.sort_by(|a, b| order(asked, device, a, b));
    offers
}

fn order(asked: &Asked<'_>, device: u64, a: &Offer<'_>, b: &Offer<'_>) -> Ordering {
    let by_device = || weight(device, b.mark).cmp(&weight(device, a.mark));
    cheap(asked, a).cmp(&cheap(asked, b)).then_with(by_device).then_with(|| a.id.cmp(b.id))
}

/// What decides between two offers, of which the first comes first.
pub fn criterion(asked: &Asked<'_>, first: &Offer<'_>, later: &Offer<'_>) -> Criterion {
    let (a, b) = (cheap(asked, first), cheap(asked, later));
    if a.0 != b.0 {
        Criterion::Fence
    } else if a.1 != b.1 {
        Criterion::Current
    } else if a.2 != b.2 {
        Criterion::Site
    } else if a.3 != b.3 {
        Criterion::Load
    } else {
        Criterion::Device
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn offer_of(id: &ServerId) -> Offer<'_> {
        Offer { id, site: "", load: Load::Light, mark: mark(id.as_str()), is_fenced: false }
    }

    #[derive(Clone, Debug)]
    struct Place {
        id: ServerId,
        site: String,
        load: Load,
        is_fenced: bool,
    }

    impl Place {
        fn offer(&self) -> Offer<'_> {
            Offer {
                id: &self.id,
                site: &self.site,
                load: self.load,
                mark: mark(self.id.as_str()),
                is_fenced: self.is_fenced,
            }
        }
    }

    fn places() -> impl Strategy<Value = Vec<Place>> {
        let place = (0..12_u8, 0..3_u8, 0..9_usize, prop::bool::weighted(0.2)).prop_map(
            |(number, site, transfers, is_fenced)| Place {
                id: format!("s{number}").parse().expect("a server id"),
                site: ["", "north", "south"][usize::from(site)].to_owned(),
                load: Load::of(transfers),
                is_fenced,
            },
        );
        prop::collection::vec(place, 0..12).prop_map(|mut places| {
            places.sort_by(|a, b| a.id.cmp(&b.id));
            places.dedup_by(|a, b| a.id == b.id);
            places
        })
    }

    proptest! {
        /// R50: whatever the order in which servers are looked at, the answer is the same, it is one of them, and it is the
        /// first of the list that is explained.
        #[test]
        fn the_choice_depends_on_nothing_but_its_inputs(
            places in places(), turn in 0..12_usize, device in "[a-z0-9]{1,20}", site in 0..3_u8,
        ) {
            let device: DeviceId = device.parse().expect("a device");
            let current: ServerId = "s3".parse().expect("a server id");
            let site = ["", "north", "south"][usize::from(site)];
            let asked = Asked { current: &current, device: &device, site };
            let found = best(&asked, places.iter().map(Place::offer)).map(|offer| offer.id.clone());
            let mut turned = places.clone();
            turned.rotate_left(turn % places.len().max(1));
            let again = best(&asked, turned.iter().map(Place::offer)).map(|offer| offer.id.clone());
            prop_assert_eq!(&found, &again);
            let list = ranked(&asked, turned.iter().map(Place::offer));
            prop_assert_eq!(found.as_ref(), list.first().map(|offer| offer.id));
            prop_assert_eq!(list.len(), places.len());

            // R47, decision 2: the current server first, unless it is fenced and another is not.
            let holds = places.iter().find(|place| place.id == current);
            let any_free = places.iter().any(|place| !place.is_fenced);
            if holds.is_some_and(|place| !place.is_fenced || !any_free) {
                prop_assert_eq!(found, Some(current));
            } else if any_free {
                prop_assert!(list.first().is_some_and(|offer| !offer.is_fenced));
            }
        }

        /// R50: a server that goes moves only the devices that it had.
        #[test]
        fn a_server_that_goes_moves_only_its_own_devices(device in "[a-z0-9]{1,20}", gone in 0..8_u8) {
            let device: DeviceId = device.parse().expect("a device");
            let current: ServerId = "elsewhere".parse().expect("a server id");
            let asked = Asked { current: &current, device: &device, site: "" };
            let ids: Vec<ServerId> = (0..8).map(|n| format!("s{n}").parse().expect("a server id")).collect();
                        let before = best(&asked, ids.iter().map(offer_of)).map(|offer| offer.id.clone());
            let gone = &ids[usize::from(gone)];
            let after = best(&asked, ids.iter().filter(|id| *id != gone).map(offer_of)).map(|offer| offer.id.clone());
            if before.as_ref() != Some(gone) {
                prop_assert_eq!(before, after);
            }
        }
    }

    /// R50: devices spread evenly over servers that are alike.
    #[test]
    fn devices_spread_over_servers() {
        let ids: Vec<ServerId> = (0..4).map(|n| format!("s{n}").parse().expect("a server id")).collect();
        let current: ServerId = "elsewhere".parse().expect("a server id");
        let mut counts = std::collections::BTreeMap::new();
        for number in 0..4_000 {
            let device: DeviceId = format!("device-{number}").parse().expect("a device");
            let asked = Asked { current: &current, device: &device, site: "" };
            let offers = ids.iter().map(offer_of);
            *counts.entry(best(&asked, offers).map(|offer| offer.id)).or_insert(0) += 1;
        }
        assert!(counts.len() == 4 && counts.values().all(|count| (900..1_100).contains(count)), "{counts:?}");
    }
}
