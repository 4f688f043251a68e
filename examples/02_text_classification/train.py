"""Train a tokenizer and a tiny BERT on the corpus, and save both as a Hugging Face directory."""

import random

import torch
from corpus import BUILD, FAMILIES, split, write
from tokenizers import BertWordPieceTokenizer
from transformers import BertConfig, BertForSequenceClassification, BertTokenizerFast

EPOCHS, BATCH, MAX_TOKENS = 7, 32, 48


def main() -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)  # matrices this small gain nothing from more
    BUILD.mkdir(exist_ok=True)
    train, test = split()
    write(BUILD / "train.jsonl", train)
    write(BUILD / "test.jsonl", test)

    words = BertWordPieceTokenizer()
    words.train_from_iterator([row["text"] for row in train], vocab_size=4000, show_progress=False)
    words.save_model(str(BUILD))
    tokenizer = BertTokenizerFast(str(BUILD / "vocab.txt"), model_max_length=MAX_TOKENS)

    label2id = {label: index for index, label in enumerate(FAMILIES)}
    config = BertConfig(
        vocab_size=len(tokenizer), hidden_size=128, num_hidden_layers=2, num_attention_heads=4,
        intermediate_size=256, max_position_embeddings=MAX_TOKENS,
        label2id=label2id, id2label={index: label for label, index in label2id.items()},
    )  # fmt: skip
    model = BertForSequenceClassification(config).train()
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.01)
    steps = EPOCHS * -(-len(train) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=1e-3, total_steps=steps)
    chance = random.Random(0)
    for _ in range(EPOCHS):
        chance.shuffle(train)
        for start in range(0, len(train), BATCH):
            rows = train[start : start + BATCH]
            inputs = tokenizer([r["text"] for r in rows], truncation=True, padding=True, return_tensors="pt")
            optimizer.zero_grad()
            model(**inputs, labels=torch.tensor([label2id[r["label"]] for r in rows])).loss.backward()
            optimizer.step()
            schedule.step()
    model.save_pretrained(BUILD / "docstrings-bert")
    tokenizer.save_pretrained(BUILD / "docstrings-bert")


if __name__ == "__main__":
    main()
