//! PyTorch archives: a file that torch wrote, and files that nobody should have written.

use std::io::Cursor;

use proptest::prelude::*;
use webjepa::checkpoint::pytorch::Archive;
use webjepa::checkpoint::{EncoderChoice, File, Header, Plan, Selection, assemble};
use webjepa::config::ModelConfig;

/// Written by torch 2 from `vjepa2_tiny.safetensors`: `{"encoder": {"module.backbone.…": …}, "predictor": …, "epoch": …, "opt": …}`, see
/// `tests/data/README.md`.
const SAVED: &[u8] = include_bytes!("data/vjepa2_tiny.pt");
const SAFE: &[u8] = include_bytes!("fixtures/vjepa2_tiny.safetensors");
const CONFIG: &str = include_str!("fixtures/vjepa2_tiny_hf/config.json");

fn header(bytes: &[u8]) -> webjepa::Result<Header> {
    Header::read(&mut Cursor::new(bytes), bytes.len() as u64)
}

/// Every parameter by name, as it would reach a model.
fn parameters(bytes: &[u8]) -> Vec<(String, Vec<f32>)> {
    let file = File {
        name: "a checkpoint".into(),
        header: header(bytes).unwrap(),
    };
    let selection = Selection {
        encoder: EncoderChoice::Auto,
        predictor: true,
        both: true,
        ..Selection::default()
    };
    let config = ModelConfig::from_hf_json(CONFIG).unwrap();
    let plan = Plan::new(&[file], &config, selection).unwrap();
    let mut all: Vec<(String, Vec<f32>)> = Vec::new();
    assemble(plan, &mut [Cursor::new(bytes)], |piece| {
        match all.iter_mut().find(|(name, _)| *name == piece.slot.name) {
            Some((_, data)) => data.extend_from_slice(piece.data),
            None => all.push((piece.slot.name.clone(), piece.data.to_vec())),
        }
        Ok(())
    })
    .unwrap();
    all.sort_by(|a, b| a.0.cmp(&b.0));
    all
}

#[test]
fn what_torch_saved_is_what_the_safetensors_file_holds() {
    assert_eq!(parameters(SAVED), parameters(SAFE));
}

#[test]
fn the_rest_of_a_training_checkpoint_is_named_by_its_keys() {
    let header = header(SAVED).unwrap();
    let names: Vec<&str> = header.tensors.iter().map(|t| t.name.as_str()).collect();
    assert!(names.contains(&"encoder.module.backbone.norm.weight"));
    assert!(names.contains(&"opt.state.0.exp_avg"), "{names:?}");
}

#[test]
fn a_cut_file_is_refused_wherever_it_is_cut() {
    for length in (0..SAVED.len()).step_by(SAVED.len() / 97) {
        assert!(header(&SAVED[..length]).is_err(), "{length} bytes");
    }
}

/// A zip entry without compression, its data at a multiple of 64 bytes.
fn entry(file: &mut Vec<u8>, directory: &mut Vec<u8>, name: &str, data: &[u8]) {
    let at = file.len() as u32;
    let extra = (64 - (file.len() + 30 + name.len() + 4) % 64) % 64;
    let size = (data.len() as u32).to_le_bytes();
    let lengths = [
        (name.len() as u16).to_le_bytes(),
        (extra as u16 + 4).to_le_bytes(),
    ];
    file.extend_from_slice(b"PK\x03\x04");
    file.extend_from_slice(&[0; 14]);
    file.extend([size, size].concat());
    file.extend(lengths.concat());
    file.extend_from_slice(name.as_bytes());
    file.extend_from_slice(b"FB");
    file.extend((extra as u16).to_le_bytes());
    file.extend(vec![b'Z'; extra]);
    file.extend_from_slice(data);
    directory.extend_from_slice(b"PK\x01\x02");
    directory.extend_from_slice(&[0; 16]);
    directory.extend([size, size].concat());
    directory.extend((name.len() as u16).to_le_bytes());
    directory.extend_from_slice(&[0; 12]);
    directory.extend(at.to_le_bytes());
    directory.extend_from_slice(name.as_bytes());
}

/// An archive of a pickle and one storage of four floats.
fn archive(pickle: &[u8]) -> Vec<u8> {
    let (mut file, mut directory) = (Vec::new(), Vec::new());
    entry(&mut file, &mut directory, "a/data.pkl", pickle);
    let numbers: Vec<u8> = [1f32, 2.0, 3.0, 4.0]
        .iter()
        .flat_map(|v| v.to_le_bytes())
        .collect();
    entry(&mut file, &mut directory, "a/data/0", &numbers);
    let (at, length) = (file.len() as u32, directory.len() as u32);
    file.extend(directory);
    file.extend_from_slice(b"PK\x05\x06\0\0\0\0\x02\0\x02\0");
    file.extend(length.to_le_bytes());
    file.extend(at.to_le_bytes());
    file.extend_from_slice(&[0; 2]);
    file
}

/// A pickle of `{"x": tensor}` with this shape, these strides and this offset.
fn pickled(class: &str, offset: u8, shape: [u8; 2], strides: [u8; 2]) -> Vec<u8> {
    let mut pickle =
        b"\x80\x02}X\x01\0\0\0xctorch._utils\n_rebuild_tensor_v2\n((X\x07\0\0\0storagec".to_vec();
    pickle.extend_from_slice(class.as_bytes());
    pickle.extend_from_slice(b"\nX\x01\0\0\x000X\x03\0\0\0cpuK\x04tQ");
    pickle.extend([b'K', offset, b'K', shape[0], b'K', shape[1], 0x86]);
    pickle.extend([b'K', strides[0], b'K', strides[1], 0x86, 0x89]);
    pickle.extend_from_slice(b"ccollections\nOrderedDict\n)RtRs.");
    pickle
}

#[test]
fn tensors_lie_where_their_storages_do() {
    let file = archive(&pickled("torch\nFloatStorage", 1, [1, 3], [3, 1]));
    let header = header(&file).unwrap();
    let [tensor] = header.tensors.as_slice() else {
        panic!("{header:?}");
    };
    assert_eq!(
        (tensor.name.as_str(), tensor.shape.as_slice()),
        ("x", &[1, 3][..])
    );
    let data = &file[tensor.begin as usize..tensor.end as usize];
    let numbers: Vec<f32> = data
        .chunks(4)
        .map(|b| f32::from_le_bytes(b.try_into().unwrap()))
        .collect();
    assert_eq!(numbers, [2.0, 3.0, 4.0]);
}

#[test]
fn what_cannot_be_taken_as_it_lies_says_so() {
    let dtype =
        |pickle: Vec<u8>| header(&archive(&pickle)).map(|header| header.tensors[0].dtype.name());
    assert_eq!(
        dtype(pickled("torch\nFloatStorage", 0, [2, 2], [1, 2])),
        Ok("not contiguous")
    );
    assert_eq!(
        dtype(pickled("torch\nLongStorage", 0, [1, 2], [2, 1])),
        Ok("I64")
    );
    for (pickle, said) in [
        (
            pickled("torch\nFloatStorage", 0, [2, 3], [3, 1]),
            "larger than its storage",
        ),
        (
            pickled("torch\nFloatStorage", 4, [1, 1], [1, 1]),
            "larger than its storage",
        ),
        (b"\x80\x02}q\0h\x05.".to_vec(), "not stored"),
        (b"\x80\x02\x82\x01.".to_vec(), "opcode 0x82"),
        (b"\x80\x02".to_vec(), "cut off"),
        (b"t.".to_vec(), "no mark"),
        (b".".to_vec(), "not there"),
    ] {
        let error = header(&archive(&pickle)).unwrap_err();
        assert!(error.to_string().contains(said), "{error}");
    }
}

#[test]
fn nothing_is_executed_and_other_objects_are_passed_over() {
    // os.system("exit") as a value, beside a tensor of the other key.
    let mut pickle = b"\x80\x02}(X\x01\0\0\0ecos\nsystem\nX\x04\0\0\0exit\x85R".to_vec();
    let inner = pickled("torch\nFloatStorage", 0, [2, 2], [2, 1]);
    pickle.extend_from_slice(&inner[3..inner.len() - 2]);
    pickle.extend_from_slice(b"u.");
    let header = header(&archive(&pickle)).unwrap();
    assert_eq!(header.tensors.len(), 1);
}

#[test]
fn what_refers_to_itself_ends() {
    // A list of itself, and twenty lists each of the one before twice.
    let itself = b"\x80\x02]q\0h\0a.".to_vec();
    let mut doubling = b"\x80\x02]q\0".to_vec();
    for i in 0..30u8 {
        doubling.extend([b']', b'q', i + 1, b'(', b'h', i, b'h', i, b'e']);
    }
    doubling.push(b'.');
    for pickle in [itself, doubling] {
        let error = header(&archive(&pickle)).unwrap_err();
        assert!(error.to_string().contains("repeats itself"), "{error}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn damaged_files_give_errors_or_headers_that_fit(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        cut in any::<prop::sample::Index>(),
        whole in any::<bool>(),
    ) {
        let mut file = archive(&pickled("torch\nFloatStorage", 0, [2, 2], [2, 1]));
        for (at, byte) in changes {
            let at = at.index(file.len());
            file[at] = byte;
        }
        if !whole {
            file.truncate(cut.index(file.len()));
        }
        if let Ok(header) = header(&file) {
            for tensor in header.tensors {
                prop_assert!(tensor.begin <= tensor.end && tensor.end <= file.len() as u64);
            }
        }
    }

    #[test]
    fn any_pickle_ends(pickle in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = header(&archive(&pickle));
    }

    #[test]
    fn what_is_given_is_checked(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
        let mut archive = Archive::new(1 << 40);
        prop_assert!(archive.give(&bytes).is_err());
    }
}
