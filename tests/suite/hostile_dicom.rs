//! DICOM files crafted to bring a reader down: nesting, floods and false claims, in every encoding.

use std::io::Cursor;
use std::thread;

use ahi_inference::dicom::p10::{P10Instance, read_bytes};
use ahi_inference::error::{Error, ErrorKind, Result};
use dicom_core::value::Value;
use dicom_object::mem::InMemElement;
use dicom_object::{InMemDicomObject, OpenFileOptions};
use proptest::prelude::*;

const IMPLICIT: &[u8] = b"1.2.840.10008.1.2";
const EXPLICIT: &[u8] = b"1.2.840.10008.1.2.1";
const JPEG: &[u8] = b"1.2.840.10008.1.2.4.50";
const UNDEFINED: u32 = u32::MAX;
/// Far smaller than the stack of any server thread.
const STACK: usize = 128 << 10;

fn head(tag: (u16, u16), vr: &[u8; 2], length: u32, implicit: bool) -> Vec<u8> {
    let mut bytes = [tag.0.to_le_bytes(), tag.1.to_le_bytes()].concat();
    if implicit || tag.0 == 0xFFFE {
        bytes.extend(length.to_le_bytes());
    } else if matches!(vr, b"OB" | b"OW" | b"SQ" | b"UN" | b"UT" | b"UC") {
        bytes.extend(vr);
        bytes.extend([0, 0]);
        bytes.extend(length.to_le_bytes());
    } else {
        bytes.extend(vr);
        bytes.extend((length as u16).to_le_bytes());
    }
    bytes
}

fn element(tag: (u16, u16), vr: &[u8; 2], value: &[u8], implicit: bool) -> Vec<u8> {
    [head(tag, vr, value.len() as u32, implicit), value.to_vec()].concat()
}

fn item(length: u32) -> Vec<u8> {
    head((0xFFFE, 0xE000), b"  ", length, true)
}

fn item_end() -> Vec<u8> {
    head((0xFFFE, 0xE00D), b"  ", 0, true)
}

fn sequence_end() -> Vec<u8> {
    head((0xFFFE, 0xE0DD), b"  ", 0, true)
}

/// Builds a file with these TransferSyntaxUID elements, padding included.
fn file(syntaxes: &[&[u8]], data: &[u8]) -> Vec<u8> {
    let group: Vec<u8> =
        syntaxes.iter().flat_map(|uid| element((2, 0x10), b"UI", uid, false)).collect();
    let length = (group.len() as u32).to_le_bytes();
    let mut bytes = vec![0; 128];
    bytes.extend(b"DICM");
    bytes.extend(element((2, 0), b"UL", &length, false));
    bytes.extend(group);
    bytes.extend(data);
    bytes
}

fn even(uid: &[u8]) -> Vec<u8> {
    let mut uid = uid.to_vec();
    uid.resize(uid.len().next_multiple_of(2), 0);
    uid
}

fn identifiers(implicit: bool) -> Vec<u8> {
    let class = element((8, 0x16), b"UI", b"1.2.3.4\0", implicit);
    [class, element((8, 0x18), b"UI", b"1.2.3.5\0", implicit)].concat()
}

/// Builds nested sequences and items of undefined length.
fn nested(depth: usize, implicit: bool, vr: &[u8; 2]) -> Vec<u8> {
    let open = [head((8, 0x1140), vr, UNDEFINED, implicit), item(UNDEFINED)].concat();
    [open.repeat(depth), [item_end(), sequence_end()].concat().repeat(depth)].concat()
}

/// Builds nested sequences and items of defined length.
fn nested_by_length(depth: usize, implicit: bool) -> Vec<u8> {
    let mut parts = Vec::new();
    let mut length = 0;
    for _ in 0..depth {
        let part = [head((8, 0x1140), b"SQ", length + 8, implicit), item(length)].concat();
        length += part.len() as u32;
        parts.push(part);
    }
    parts.into_iter().rev().flatten().collect()
}

/// Reads on a thread with a small stack.
fn read_on_small_stack(bytes: Vec<u8>) -> Result<P10Instance> {
    let run = move || read_bytes(&bytes).map(|instance| (instance.dataset.clone(), instance).1);
    thread::Builder::new().stack_size(STACK).spawn(run).unwrap().join().unwrap()
}

fn refusal(bytes: Vec<u8>) -> Error {
    read_on_small_stack(bytes).unwrap_err()
}

/// Returns every spelling of the transfer syntax, right and wrong, and whether implicit VR follows.
fn spellings() -> Vec<(Vec<Vec<u8>>, bool)> {
    let padded = |uid: &[u8], padding: &[u8]| [uid, padding].concat();
    let mut all = Vec::new();
    for padding in [
        &b"\0"[..],
        b" ",
        b"\0\0\0",
        b"   ",
        b" \0 \0\0",
        b"\t\n\r\0\0",
        &[0; 47],
        &[0; 49],
        &[b' '; 4001],
    ] {
        all.push((vec![padded(IMPLICIT, padding)], true));
        all.push((vec![padded(EXPLICIT, padding)], false));
        all.push((vec![padded(EXPLICIT, padding)], true));
        all.push((vec![padded(IMPLICIT, padding)], false));
    }
    all.push((vec![padded(b" ", IMPLICIT)], true));
    all.push((vec![padded(IMPLICIT, b"\0.1\0\0\0")], true));
    all.push((vec![[IMPLICIT, b"\\", EXPLICIT].concat()], true));
    for pair in [[IMPLICIT, EXPLICIT], [EXPLICIT, IMPLICIT], [IMPLICIT, IMPLICIT]] {
        all.push((pair.iter().map(|uid| even(uid)).collect(), true));
    }
    all.push((vec![], true));
    all.push((vec![b"1.2.840.10008.1.2.2\0".to_vec()], false));
    all.push((vec![b"1.2.840.10008.1.2.1.99".to_vec()], false));
    all.push((vec![b"1.2.3\0".to_vec()], true));
    all
}

#[test]
fn no_depth_in_any_encoding_takes_the_stack() {
    for (syntaxes, implicit) in spellings() {
        let syntaxes: Vec<&[u8]> = syntaxes.iter().map(Vec::as_slice).collect();
        for data in [nested(50_000, implicit, b"SQ"), nested_by_length(20_000, implicit)] {
            let e = refusal(file(&syntaxes, &[identifiers(implicit), data].concat()));
            let expected = [ErrorKind::InvalidImage, ErrorKind::UnsupportedPixelData];
            assert!(expected.contains(&e.kind()), "{syntaxes:?}: {e}");
        }
    }
    let e = refusal(file(&[&even(EXPLICIT)], &nested(50_000, false, b"SQ")));
    assert!(e.message().contains("more than 32 sequences"), "{e}");
}

#[test]
fn sequences_of_other_value_representations_nest_no_deeper() {
    for vr in [b"UN", b"OB", b"OW", b"UT"] {
        for implicit in [false, true] {
            let start = [head((9, 0x1010), vr, UNDEFINED, false), item(UNDEFINED)].concat();
            let data = [start, nested(50_000, implicit, vr)].concat();
            assert_eq!(refusal(file(&[&even(EXPLICIT)], &data)).kind(), ErrorKind::InvalidImage);
        }
    }
    // An icon's pixel data, and pixel data that is a sequence.
    let icon = [head((0x88, 0x200), b"SQ", UNDEFINED, false), item(UNDEFINED)].concat();
    let fragments = [head((0x7FE0, 0x10), b"OB", UNDEFINED, false), item(0)].concat();
    let data = [icon, fragments, nested(50_000, false, b"SQ")].concat();
    assert_eq!(refusal(file(&[&even(EXPLICIT)], &data)).kind(), ErrorKind::InvalidImage);
    let pixels = [head((0x7FE0, 0x10), b"SQ", UNDEFINED, false), item(UNDEFINED)].concat();
    let data = [identifiers(false), pixels, nested(50_000, false, b"SQ")].concat();
    assert_eq!(refusal(file(&[&even(EXPLICIT)], &data)).kind(), ErrorKind::CorruptFrame);
}

/// Nesting depths that occur in practice are read, copied and dropped on a small stack.
#[test]
fn reasonable_depths_are_read() {
    for implicit in [false, true] {
        let syntax = even(if implicit { IMPLICIT } else { EXPLICIT });
        for data in [nested(32, implicit, b"SQ"), nested_by_length(32, implicit)] {
            let bytes = file(&[&syntax], &[identifiers(implicit), data].concat());
            assert!(read_on_small_stack(bytes).is_ok(), "implicit: {implicit}");
        }
    }
}

#[test]
fn a_transfer_syntax_is_stated_once_and_is_one() {
    let data = identifiers(true);
    for padding in [&b""[..], b"\0", b" ", b"\0\0\0\0\0", b"  \0", &[0; 47]] {
        let uid = [IMPLICIT, padding].concat();
        let instance = read_bytes(&file(&[&uid], &data)).unwrap();
        assert_eq!(instance.transfer_syntax.as_bytes(), IMPLICIT);
    }
    let message = |syntaxes: &[&[u8]]| refusal(file(syntaxes, &data)).to_string();
    assert!(message(&[IMPLICIT, IMPLICIT]).contains("given twice"));
    assert!(message(&[&[IMPLICIT, &[0; 48]].concat()]).contains("64 digits"));
    assert!(message(&[b"1.2\\1.3"]).contains("64 digits"));
    assert!(message(&[]).contains("missing"));
    let e = refusal(file(&[b"1.2.3.4\0"], &data));
    assert_eq!(e.kind(), ErrorKind::UnsupportedPixelData);
}

/// Once parsed, a header of many small elements takes many times its encoded size.
#[test]
fn floods_are_refused_by_the_memory_they_would_take() {
    const SIZE: usize = 64 << 20;
    let filled = |unit: Vec<u8>| unit.repeat(SIZE / unit.len());
    let tiny = element((8, 0x60), b"CS", b"", false);
    let sequence =
        |body: Vec<u8>| [head((8, 0x1140), b"SQ", UNDEFINED, false), body, sequence_end()].concat();
    let explicit = even(EXPLICIT);
    for (what, data) in [
        ("elements", filled(tiny.clone())),
        ("items", sequence(filled(item(0)))),
        ("items of one element", sequence(filled([item(8), tiny].concat()))),
        ("sequences", filled(element((8, 0x1140), b"SQ", b"", false))),
        ("values", element((8, 0x70), b"UC", &vec![b'\\'; SIZE], false)),
        ("text", element((0x20, 0x4000), b"UT", &vec![b'x'; SIZE], false)),
    ] {
        let e = refusal(file(&[&explicit], &[identifiers(false), data].concat()));
        assert_eq!(e.kind(), ErrorKind::PayloadTooLarge, "{what}: {e}");
    }
    let fragments = [head((0x7FE0, 0x10), b"OB", UNDEFINED, false), filled(item(0))].concat();
    let e = refusal(file(&[JPEG], &[identifiers(false), fragments].concat()));
    assert_eq!(e.kind(), ErrorKind::InvalidImage, "{e}");
}

#[test]
fn an_enhanced_object_of_twenty_thousand_frames_is_read() {
    let us = |tag, value: u16| element(tag, b"US", &value.to_le_bytes(), false);
    let inner = |tag, body: &[u8]| {
        let item = [item(body.len() as u32), body.to_vec()].concat();
        element(tag, b"SQ", &item, false)
    };
    let text = |tag, value: &[u8]| element(tag, b"DS", value, false);
    let frame = [
        inner((0x18, 0x9114), &element((0x18, 0x9082), b"DS", b"1.5 ", false)),
        inner((0x20, 0x9111), &[us((0x20, 0x9157), 1), us((0x20, 0x9057), 2)].concat()),
        inner((0x20, 0x9113), &text((0x20, 0x32), b"-120.5\\-120.5\\33.25 ")),
        inner((0x20, 0x9116), &text((0x20, 0x37), b"1\\0\\0\\0\\1\\0 ")),
        inner((0x28, 0x9110), &[text((0x18, 0x50), b"1 "), text((0x28, 0x30), b"1\\1 ")].concat()),
        inner(
            (0x28, 0x9132),
            &[text((0x28, 0x1050), b"40"), text((0x28, 0x1051), b"400 ")].concat(),
        ),
        inner((0x28, 0x9145), &[text((0x28, 0x1052), b"0 "), text((0x28, 0x1053), b"1 ")].concat()),
        inner((0x40, 0x9096), &element((0x40, 0x9210), b"SH", b"x ", false)),
    ]
    .concat();
    let frames = [item(frame.len() as u32), frame].concat().repeat(20_000);
    let groups = [head((0x5200, 0x9230), b"SQ", UNDEFINED, false), frames, sequence_end()].concat();
    let data = [
        identifiers(false),
        element((0x28, 8), b"IS", b"20000 ", false),
        us((0x28, 0x10), 1),
        us((0x28, 0x11), 1),
        us((0x28, 0x100), 16),
        groups,
        element((0x7FE0, 0x10), b"OW", &vec![0; 40_000], false),
    ];
    let instance = read_bytes(&file(&[&even(EXPLICIT)], &data.concat())).unwrap();
    assert_eq!(instance.frames.len(), 20_000);
}

#[test]
fn lengths_are_believed_as_far_as_there_are_bytes() {
    for vr in [b"OB", b"OW", b"UN", b"UT", b"UC", b"SQ"] {
        let data = [identifiers(false), head((9, 0x1010), vr, 0xFFFF_FFFE, false)].concat();
        assert_eq!(refusal(file(&[&even(EXPLICIT)], &data)).kind(), ErrorKind::InvalidImage);
    }
    let lie = head((2, 0x102), b"OB", 0xFFFF_FFFE, false);
    let mut bytes = file(&[&even(EXPLICIT)], &lie);
    let length = (bytes.len() - 144) as u32;
    bytes[140..144].copy_from_slice(&length.to_le_bytes());
    assert_eq!(refusal(bytes).kind(), ErrorKind::InvalidImage);
}

/// A piece of a data set: an element, a sequence of items, or stray bytes.
#[derive(Debug, Clone)]
enum Node {
    Value(u16, [u8; 2], Vec<u8>),
    Sequence(u16, [u8; 2], bool, bool, Vec<Vec<Node>>),
    Stray(Vec<u8>),
}

fn node() -> impl Strategy<Value = Node> {
    let value = (
        0..20_u16,
        prop::sample::select(vec![*b"CS", *b"LO", *b"US", *b"OB", *b"UN", *b"UT", *b"ZZ"]),
        prop::collection::vec(any::<u8>(), 0..9),
    )
        .prop_map(|(tag, vr, value)| Node::Value(tag, vr, value));
    let stray = prop::sample::select(vec![
        item(0),
        item(UNDEFINED),
        item_end(),
        sequence_end(),
        vec![0, 0, 0],
    ])
    .prop_map(Node::Stray);
    let leaf = prop_oneof![8 => value, 1 => stray];
    leaf.prop_recursive(6, 60, 4, |inner| {
        let items = prop::collection::vec(prop::collection::vec(inner, 0..4), 0..3);
        let vr = prop::sample::select(vec![*b"SQ", *b"SQ", *b"UN", *b"OB"]);
        (0..20_u16, vr, any::<bool>(), any::<bool>(), items)
            .prop_map(|(tag, vr, outer, inner, items)| Node::Sequence(tag, vr, outer, inner, items))
    })
}

fn encode(nodes: &[Node], implicit: bool) -> Vec<u8> {
    let mut bytes = Vec::new();
    for node in nodes {
        match node {
            Node::Value(tag, vr, value) => {
                bytes.extend(element((0x20, 0x9000 + tag), vr, value, implicit));
            }
            Node::Sequence(tag, vr, outer, inner, items) => {
                let items: Vec<u8> = items
                    .iter()
                    .flat_map(|nodes| {
                        let body = encode(nodes, implicit);
                        let open = item(if *inner { body.len() as u32 } else { UNDEFINED });
                        [open, body, if *inner { Vec::new() } else { item_end() }].concat()
                    })
                    .collect();
                let length = if *outer { items.len() as u32 } else { UNDEFINED };
                bytes.extend(head((0x40, 0x9200 + tag), vr, length, implicit));
                bytes.extend(items);
                bytes.extend(if *outer { Vec::new() } else { sequence_end() });
            }
            Node::Stray(stray) => bytes.extend(stray),
        }
    }
    bytes
}

/// Returns whether two data sets have equal contents. Lengths are ignored, since undefined ones never compare
/// equal.
fn same(a: &InMemDicomObject, b: &InMemDicomObject) -> bool {
    let same_element = |a: &InMemElement, b: &InMemElement| {
        let same_value = match (a.value(), b.value()) {
            (Value::Sequence(a), Value::Sequence(b)) => {
                let (a, b) = (a.items(), b.items());
                a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b))
            }
            // Compared as text, since NaN does not equal itself.
            (a, b) => format!("{a:?}") == format!("{b:?}"),
        };
        (a.header().tag, a.header().vr) == (b.header().tag, b.header().vr) && same_value
    };
    a.iter().count() == b.iter().count() && a.iter().zip(b).all(|(a, b)| same_element(a, b))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Whatever is accepted is read as the DICOM library reads it. More may be refused than the library refuses.
    #[test]
    fn data_sets_are_read_as_the_library_reads_them(
        nodes in prop::collection::vec(node(), 0..6),
        implicit: bool,
        damage in prop::option::of((any::<prop::sample::Index>(), any::<u8>())),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let mut data = [identifiers(implicit), encode(&nodes, implicit)].concat();
        if let Some((at, value)) = damage {
            let at = at.index(data.len());
            data[at] = value;
        }
        if let Some(cut) = cut {
            data.truncate(cut.index(data.len()));
        }
        let syntax = even(if implicit { IMPLICIT } else { EXPLICIT });
        let bytes = file(&[&syntax], &data);
        let theirs = OpenFileOptions::new().from_reader(Cursor::new(&bytes));
        match (read_bytes(&bytes), theirs) {
            (Ok(ours), Ok(theirs)) => {
                let theirs = theirs.into_inner();
                prop_assert!(same(&ours.dataset, &theirs), "{:?}\n{:?}", ours.dataset, theirs);
            }
            (Ok(_), Err(e)) => prop_assert!(false, "the library refuses: {}", e),
            (Err(_), _) => {}
        }
    }
}
