//! One question to a time server (RFC 4330, the simple form of NTP, over RFC 5905).
//!
//! Read by our own code: the bounds of an answer are only honest with the distance of the server from its own source, with
//! the wall clock of this process, and in the right era, and no library for asking gives all three.

use std::{io, net::SocketAddr, time::Duration};

use tokio::net::{UdpSocket, lookup_host};

use crate::ports::NtpAnswer;

/// Bytes of a question, and of the part of an answer that is read.
const PACKET_BYTES: usize = 48;
/// Version 4, mode client.
const QUESTION: u8 = 0b00_100_011;
const MODE_SERVER: u8 = 4;
/// The server says that its own clock is not kept in time.
const LEAP_UNKNOWN: u8 = 3;
/// From this on a server has no source.
const STRATUM_NONE: u8 = 16;
/// From 1900, where NTP begins to count, to 1970.
const NTP_TO_UNIX_SECONDS: i128 = 2_208_988_800;
/// An era: seconds are counted in 32 bits.
const ERA_SECONDS: i128 = 1 << 32;
const SECOND_NS: i128 = 1_000_000_000;

/// Why an answer says nothing.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum NtpError {
    /// It is too short, or no answer to this question.
    #[error("what came is no answer to the question")]
    Foreign,
    /// The server has no time to give.
    #[error("it says that its own clock is not kept in time (leap {leap}, stratum {stratum})")]
    Unsynchronized {
        /// Its leap indicator.
        leap: u8,
        /// Its distance from a reference clock; 0 is a refusal.
        stratum: u8,
    },
}

/// Asks a server, `host:port`, and waits for its answer for as long as the caller does.
///
/// # Errors
/// What the network says, and [`NtpError`] within.
pub async fn ask(server: &str, now_ns: i128, nonce: u64) -> io::Result<NtpAnswer> {
    let mut addresses = lookup_host(server).await?;
    let address = addresses.next().ok_or_else(|| io::Error::other("the name has no address"))?;
    let any: SocketAddr = if address.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0_u16; 8], 0).into() };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(address).await?;
    let mut question = [0_u8; PACKET_BYTES];
    question[0] = QUESTION;
    // Whatever stands here comes back: a number that nobody can guess does as well as a time, and tells nobody ours.
    question[40..].copy_from_slice(&nonce.to_be_bytes());
    socket.send(&question).await?;
    let mut answer = [0_u8; 512];
    loop {
        let length = socket.recv(&mut answer).await?;
        match read(&answer[..length], now_ns, nonce) {
            // Somebody else's; ours may still come.
            Err(NtpError::Foreign) => {}
            read => return read.map_err(io::Error::other),
        }
    }
}

/// Reads an answer.
fn read(packet: &[u8], now_ns: i128, nonce: u64) -> Result<NtpAnswer, NtpError> {
    let packet: &[u8; PACKET_BYTES] = packet.first_chunk().ok_or(NtpError::Foreign)?;
    let word = |at: usize| u32::from_be_bytes([packet[at], packet[at + 1], packet[at + 2], packet[at + 3]]);
    let long = |at: usize| (u64::from(word(at)) << 32) | u64::from(word(at + 4));
    let (leap, mode, stratum) = (packet[0] >> 6, packet[0] & 7, packet[1]);
    if mode != MODE_SERVER || long(24) != nonce {
        return Err(NtpError::Foreign);
    }
    if leap == LEAP_UNKNOWN || stratum == 0 || stratum >= STRATUM_NONE || long(40) == 0 {
        return Err(NtpError::Unsynchronized { leap, stratum });
    }
    // The way to its source and back, half of which it may be wrong by, and what it adds to that itself.
    let short = |at: usize| Duration::from_secs(1).mul_f64(f64::from(word(at)) / 65_536.0);
    let error = short(4) / 2 + short(8);
    Ok(NtpAnswer { received_ns: unix(long(32), now_ns), replied_ns: unix(long(40), now_ns), error })
}

/// A time of NTP in the era that is closest to now. A clock that is wrong by 68 years sees another era, and so is contradicted
/// by at most 68 years more or less.
fn unix(time: u64, now_ns: i128) -> i128 {
    let seconds = i128::from(time >> 32) - NTP_TO_UNIX_SECONDS;
    let fraction = (i128::from(time & u64::from(u32::MAX)) * SECOND_NS) >> 32;
    let first = seconds * SECOND_NS + fraction;
    let era = ERA_SECONDS * SECOND_NS;
    let eras = (now_ns - first + era / 2).div_euclid(era);
    first + eras.max(0) * era
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONCE: u64 = 0x0123_4567_89ab_cdef;

    fn packet(leap: u8, stratum: u8, received: u64, replied: u64) -> [u8; PACKET_BYTES] {
        let mut packet = [0; PACKET_BYTES];
        (packet[0], packet[1]) = ((leap << 6) | (4 << 3) | MODE_SERVER, stratum);
        // A way of half a second, and a quarter more.
        packet[4..8].copy_from_slice(&0x8000_u32.to_be_bytes());
        packet[8..12].copy_from_slice(&0x4000_u32.to_be_bytes());
        packet[24..32].copy_from_slice(&NONCE.to_be_bytes());
        packet[32..40].copy_from_slice(&received.to_be_bytes());
        packet[40..48].copy_from_slice(&replied.to_be_bytes());
        packet
    }

    fn ntp(unix_seconds: i128) -> u64 {
        let seconds = (unix_seconds + NTP_TO_UNIX_SECONDS).rem_euclid(ERA_SECONDS);
        u64::try_from(seconds).expect("32 bits") << 32
    }

    /// R62: an answer has its times in the era that we live in, before and after 2036 and 2106, and admits its distance.
    #[test]
    fn an_answer_is_read_in_its_era() {
        for year in [1_970, 2_026, 2_035, 2_037, 2_040, 2_105, 2_107] {
            let seconds = i128::from(year - 1_970) * 31_556_952;
            let answer = packet(0, 2, ntp(seconds), ntp(seconds) | (1 << 31));
            // The own clock is wrong by years.
            for off in [-20, 0, 20] {
                let now_ns = (seconds + off * 31_556_952).max(0) * SECOND_NS;
                let read = read(&answer, now_ns, NONCE).expect("an answer");
                assert_eq!(read.received_ns, seconds * SECOND_NS, "{year} {off}");
                assert_eq!(read.replied_ns, seconds * SECOND_NS + SECOND_NS / 2, "{year} {off}");
                assert_eq!(read.error, Duration::from_millis(500));
            }
        }
    }

    /// R62: whoever has no time to give is no witness, and neither is whoever was not asked.
    #[test]
    fn what_is_no_answer_is_not_taken_for_one() {
        let good = packet(0, 2, ntp(5), ntp(5));
        assert_eq!(read(&good[..40], 0, NONCE), Err(NtpError::Foreign));
        assert_eq!(read(&good, 0, 7), Err(NtpError::Foreign));
        let mut question = good;
        question[0] = QUESTION;
        assert_eq!(read(&question, 0, NONCE), Err(NtpError::Foreign));
        for (leap, stratum) in [(3, 2), (0, 0), (0, 16), (1, 255)] {
            let refused = read(&packet(leap, stratum, ntp(5), ntp(5)), 0, NONCE);
            assert_eq!(refused, Err(NtpError::Unsynchronized { leap, stratum }));
        }
        let mut timeless = good;
        timeless[40..].fill(0);
        assert_eq!(read(&timeless, 0, NONCE), Err(NtpError::Unsynchronized { leap: 0, stratum: 2 }));
    }

    /// R62: over a real socket.
    #[tokio::test]
    async fn a_time_server_is_asked() {
        let server = UdpSocket::bind("127.0.0.1:0").await.expect("a port");
        let address = server.local_addr().expect("an address").to_string();
        let serve = async {
            let mut question = [0; 64];
            let (length, from) = server.recv_from(&mut question).await.expect("a question");
            assert_eq!((length, question[0]), (PACKET_BYTES, QUESTION));
            server.send_to(b"noise", from).await.expect("sent");
            server.send_to(&packet(0, 1, ntp(1_000), ntp(1_000)), from).await.expect("sent");
        };
        let asked = ask(&address, 0, NONCE);
        let ((), answer) = tokio::join!(serve, asked);
        assert_eq!(answer.expect("an answer").received_ns, 1_000 * SECOND_NS);
    }
}
