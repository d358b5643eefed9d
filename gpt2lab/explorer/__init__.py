"""The page of `python -m gpt2lab.explore`: a text, what a model makes of it, and how it goes on.

`reading` asks the model, `session` keeps the text, `views` shows both as HTML, `page` makes of
them a page with gradio, `security` decides who is answered, `server` serves it.
"""
